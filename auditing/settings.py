"""Django settings. `auditing.environment` is the only reader of the environment."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import environ

from apps.core.crypto import derive_key
from apps.core.money import NANOS_PER_USD
from auditing.environment import BASE_DIR, make_private_file, read_environment

ENVIRONMENT = read_environment()
VERSION = "0.1.0"

SECRET_KEY = ENVIRONMENT.secret_key
DEBUG = False
ALLOWED_HOSTS = ENVIRONMENT.allowed_hosts
DATA_DIR = ENVIRONMENT.data_dir

# What apps may know of the environment. One name each, so that no app reads variables by itself.
ENCRYPTION_KEY = ENVIRONMENT.encryption_key
API_KEY_PEPPER = derive_key(SECRET_KEY.encode(), "api key digests")
PRIVATE_UPSTREAMS = ENVIRONMENT.private_upstreams
TRUSTED_PROXIES = ENVIRONMENT.trusted_proxies
REDIS_URL = ENVIRONMENT.redis_url
PAYLOADS = ENVIRONMENT.payloads
DRAIN_SECONDS = ENVIRONMENT.drain_seconds
METRICS_TOKEN = ENVIRONMENT.metrics_token
# Nanos; None: no second administrator is needed.
ADJUSTMENT_NANOS_ALONE = (
    None
    if ENVIRONMENT.adjustment_usd_alone is None
    else ENVIRONMENT.adjustment_usd_alone * NANOS_PER_USD
)
API_RPM_PER_USER = ENVIRONMENT.api_rpm_per_user
API_RPM_PER_ADDRESS = ENVIRONMENT.api_rpm_per_address
PAYLOAD_READERS = ENVIRONMENT.payload_readers
PAYLOAD_DAYS = ENVIRONMENT.payload_days

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "rest_framework",
    "django_filters",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "apps.audit",
    "apps.users",
    "apps.providers",
    "apps.ai_models",
    "apps.model_groups",
    "apps.api_keys",
    "apps.billing",
    "apps.quotas",
    "apps.risk",
    "apps.analytics",
    "apps.proxy",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "auditing.middleware.SecurityHeadersMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "auditing.middleware.CrossOriginMiddleware",
    "auditing.middleware.AddressThrottleMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "auditing.middleware.AdminLanguageMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "auditing.urls"
ASGI_APPLICATION = "auditing.asgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

DATABASES = {"default": environ.Env.db_url_config(ENVIRONMENT.database_url)}
if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":
    make_private_file(Path(DATABASES["default"]["NAME"]))
    DATABASES["default"]["OPTIONS"] = {
        "transaction_mode": "IMMEDIATE",
        "timeout": 10,
        # Without the last one REPLACE deletes rows past the triggers that refuse it.
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON; "
        "PRAGMA recursive_triggers=ON;",
    }
else:
    DATABASES["default"].setdefault("OPTIONS", {}).update(
        {
            "connect_timeout": 5,
            # A silent connection (a failover, a firewall) must not hang a thread for ever.
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": 15_000,
            "options": "-c lock_timeout=5s -c statement_timeout=30s "
            "-c idle_in_transaction_session_timeout=60s",
        }
    )
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

AUTH_USER_MODEL = "users.User"
AUTHENTICATION_BACKENDS = ["apps.users.sign_in.UsernameOrEmailBackend"]
PASSWORD_HASHERS = ["django.contrib.auth.hashers.Argon2PasswordHasher"]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator"},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.NumericPasswordValidator"},
]

LANGUAGE_CODE = "en"
LANGUAGES = [("en", "English"), ("zh-hans", "简体中文")]
FORMAT_MODULE_PATH = "auditing.formats"
TIME_ZONE = "UTC"
USE_TZ = True

LOGIN_REDIRECT_URL = "/admin/"

STATIC_URL = "/static/"
STATIC_ROOT = BASE_DIR / "static"
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "auditing.static_files.MaplessStorage"},
}

# The data plane answers both /v1/x and /v1/x/; a redirect would turn POST into GET.
APPEND_SLASH = False
X_FRAME_OPTIONS = "DENY"
SECURE_CONTENT_TYPE_NOSNIFF = True
# Said over TLS only.
SECURE_HSTS_SECONDS = 31_536_000
SECURE_REFERRER_POLICY = "same-origin"
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
CSRF_COOKIE_SAMESITE = "Lax"
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if TRUSTED_PROXIES else None
DATA_UPLOAD_MAX_MEMORY_SIZE = 2_621_440
CORS_ALLOWED_ORIGINS = ENVIRONMENT.cors_allowed_origins

CACHES = {
    "default": (
        {
            "BACKEND": "django.core.cache.backends.redis.RedisCache",
            "LOCATION": REDIS_URL,
            # Of each question; the client waits five seconds by itself.
            "OPTIONS": {"socket_timeout": 0.25, "socket_connect_timeout": 0.25},
        }
        if REDIS_URL
        # Counts of attempts are not kept here, where entries make room for others.
        else {
            "BACKEND": "django.core.cache.backends.locmem.LocMemCache",
            "OPTIONS": {"MAX_ENTRIES": 10_000},
        }
    )
}

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["apps.users.tokens.SessionCheckedJWTAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["apps.users.permissions.IsAdmin"],
    "DEFAULT_THROTTLE_CLASSES": ["apps.core.throttles.UserThrottle"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["apps.core.json_parser.StrictJSONParser"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "DEFAULT_FILTER_BACKENDS": ["django_filters.rest_framework.DjangoFilterBackend"],
    "DEFAULT_PAGINATION_CLASS": "apps.core.pages.NumberedPages",
    "EXCEPTION_HANDLER": "apps.core.rest.answer_exception",
    "TEST_REQUEST_DEFAULT_FORMAT": "json",
}
SIMPLE_JWT = {
    "SIGNING_KEY": derive_key(SECRET_KEY.encode(), "access tokens").hex(),
    "ACCESS_TOKEN_LIFETIME": timedelta(minutes=15),
    "REFRESH_TOKEN_LIFETIME": timedelta(days=7),
    "LEEWAY": 60,
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Audit and billing gateway",
    "VERSION": VERSION,
    "SERVE_INCLUDE_SCHEMA": False,
    "SCHEMA_PATH_PREFIX": "/api",
    "ENFORCE_NON_BLANK_FIELDS": True,
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "auditing.schema.describe_all",
    ],
    "ENUM_NAME_OVERRIDES": {
        "AccountKind": "apps.billing.models.AccountKind",
        "EntryKind": "apps.billing.models.EntryKind",
        "PriceState": "apps.ai_models.prices.PRICE_STATES",
        "ProposalStatus": "apps.billing.models.ProposalStatus",
        "RequestState": "apps.audit.models.RequestState",
        "RuleAction": "apps.risk.models.RuleAction",
        "RuleKind": "apps.risk.models.RuleKind",
        # Of imported models: it was the only status once, and clients have its name.
        "StatusEnum": ["created", "exists"],
        "TransactionKind": "apps.billing.models.TransactionKind",
    },
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
}

CELERY_BROKER_URL = REDIS_URL or "filesystem://localhost/"
CELERY_BROKER_TRANSPORT = None if REDIS_URL else "auditing.folder_broker:Transport"
CELERY_TASK_IGNORE_RESULT = True
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_TASK_ACKS_LATE = True
CELERY_TASK_TIME_LIMIT = 600
CELERY_BROKER_TRANSPORT_OPTIONS = (
    {}
    if REDIS_URL
    else {
        "data_folder_in": str(DATA_DIR / "broker" / "queue"),
        "data_folder_out": str(DATA_DIR / "broker" / "queue"),
        "control_folder": str(DATA_DIR / "broker" / "control"),
    }
)

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"()": "apps.core.logs.LineFormatter"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["stderr"], "level": "INFO"},
    "loggers": {
        # Django logs these as errors; scanners send any Host, and each is answered 400.
        "django.security.DisallowedHost": {"level": "CRITICAL"},
        "httpx": {"level": "WARNING"},
        "celery": {"level": "WARNING"},
        "uvicorn.error": {"level": "WARNING"},
        "uvicorn.access": {"level": "WARNING"},
    },
}
