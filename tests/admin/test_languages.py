"""Tests that who reads Chinese sees no English beside it in the Django admin."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any, Final

import pytest
from django.contrib import admin
from django.contrib.staticfiles import finders
from django.db import models
from django.test import Client
from django.utils import translation

from apps.api_keys.operations import KEY_OPERATIONS
from apps.core.domain_errors import DomainError
from apps.core.languages import read_chinese, translate
from apps.providers.headers import check_headers
from apps.providers.identities import GOOGLE, keep_secret
from apps.risk.changes import check_ids
from apps.risk.matchers import match_pattern, match_words
from apps.risk.models import RiskRule
from apps.users.models import User, UserGroup
from tests.support.house import OURS, House, page_of, send
from tests.support.people import rest_client

IN_CHINESE: Final = {"accept-language": "zh-CN,zh;q=0.9,en;q=0.5"}
# What stands for itself on a page: labels, heads of columns, help, headings, choices, links.
_TOLD: Final = (
    r"<label[^>]*>(.*?)</label>",
    r'<div class="text">(.*?)</div>',
    r'<th scope="col"[^>]*>\s*(.*?)\s*</th>',
    r'<div class="help"[^>]*>(.*?)</div>\s*(?:</div>|<)',
    r"<h1[^>]*>(.*?)</h1>",
    r'<h2[^>]*class="fieldset-heading"[^>]*>(.*?)</h2>',
    r"<summary[^>]*>(.*?)</summary>",
    r"<option[^>]*>(.*?)</option>",
    r'<a href="/admin/[a-z_]+/(?:[a-z]+/)?"[^>]*>(.*?)</a>',
)
# Names that are the same in every language.
_NAMES: Final = re.compile(
    r"ID|User-Agent|Google Gemini|OpenAI (Chat Completions|Responses)|Anthropic Messages"
    r"|Authorization: Bearer|x-api-key|api-key|x-goog-api-key|max_\w+|full|off|metadata"
    # Django's own, for screen readers, which it has no Chinese for yet.
    r"|Model name|Add link|Change or view list link"
)
# Rows of the test that can be chosen, and what a key may be used for.
_ROWS: Final = re.compile(
    r"-+|\d+|public|small|somewhere.*|ada.*|main|root|staff|all|big|.* → .*|"
    + "|".join(KEY_OPERATIONS)
)


@pytest.fixture
def client(house: House) -> Client:
    """Return a browser of somebody who reads Chinese, signed in as the administrator."""
    browser = Client(headers=IN_CHINESE)
    browser.force_login(house.root)
    return browser


def _told(page: str) -> set[str]:
    found = {
        " ".join(unescape(re.sub(r"<[^>]+>", " ", text)).split()).strip(":： ")
        for pattern in _TOLD
        for text in re.findall(pattern, page, re.DOTALL)
    }
    return {text for text in found if text}


def _is_chinese(text: str) -> bool:
    return re.search(r"[\u4e00-\u9fff]", text) is not None


@pytest.mark.sqlite  # What a page says is decided by no database.
@pytest.mark.parametrize("model", OURS, ids=lambda model: model._meta.label_lower)
def test_a_page_in_chinese_has_no_english_beside_it(
    client: Client, house: House, model: type[models.Model]
) -> None:
    page = admin.site.get_model_admin(model)
    request: Any = type("Request", (), {"user": house.root})
    paths = [page_of(model, "changelist")]
    paths += [page_of(model, "change", row.pk) for row in model._default_manager.all()[:1]]
    paths += [page_of(model, "add")] if page.has_add_permission(request) else []

    told = {text for path in paths for text in _told(client.get(path).content.decode())}

    english = {
        text
        for text in told
        if not _is_chinese(text) and not _NAMES.fullmatch(text) and not _ROWS.fullmatch(text)
    }
    assert len(told) > 20
    assert english == set(), english


def test_the_list_has_what_it_is_given_and_its_places() -> None:
    for english, chinese in read_chinese().items():
        assert chinese.strip(), english
        assert chinese != english
        assert english.count("{}") == chinese.count("{}"), english


def test_a_text_is_english_where_the_list_lacks_it_and_for_other_languages() -> None:
    with translation.override("zh-hans"):
        assert translate("risk rule") == "风控规则"
        assert translate("Risk rule") == "风控规则"
        assert translate("No such text.") == "No such text."
    with translation.override("en"):
        assert translate("risk rule") == "risk rule"


@pytest.mark.parametrize(
    ("refused", "chinese"),
    [
        (lambda: check_headers([]), "请输入由名称和值组成的 JSON 对象。"),
        (lambda: check_headers({"Host": "x"}), "此处不能设置请求头 host。"),
        (lambda: check_headers({"x-a": "é"}), "x-a 的值须为 1 至 500 个可打印的 ASCII 字符。"),
        (lambda: match_words(["x" * 101], are_whole=False), "每个词语最多 100 个字符。"),
        (lambda: match_pattern("("), "这不是 RE2 正则表达式：missing ): ("),
        (lambda: check_ids({"user_groups": [999_999]}), "没有用户组 999999。"),
        (lambda: keep_secret("x", GOOGLE, ()), "此提供商需要服务账号密钥的 JSON。"),
        (
            lambda: keep_secret("a b", "", ()),
            "提供商密钥须为 1 至 4096 个可打印的 ASCII 字符，不含空格。",
        ),
    ],
)
def test_what_the_domain_refuses_is_said_in_chinese_with_its_parts(
    db: None, refused: Callable[[], object], chinese: str
) -> None:
    with pytest.raises(ValueError) as caught, translation.override("zh-hans"):
        refused()

    with translation.override("zh-hans"):
        assert translate(str(caught.value)) == chinese
    with translation.override("en"):
        assert translate(str(caught.value)) == str(caught.value)


def test_every_refusal_of_the_domain_has_its_chinese() -> None:
    kinds, told = [DomainError], set()
    for kind in kinds:
        kinds += kind.__subclasses__()
        if ".tests." not in kind.__module__:  # Tests have refusals of their own.
            told.add(kind.message)

    with translation.override("zh-hans"):
        english = {text for text in told if text and translate(text) == text}

    assert len(told) > 40
    assert english == set()


def test_a_part_stays_what_somebody_wrote() -> None:
    with translation.override("zh-hans"):
        assert translate("The header {} stands twice.") == "请求头 {} 出现了两次。"
        assert translate("The header x-{0} stands twice.") == "请求头 x-{0} 出现了两次。"
        assert translate("The header user stands twice, or so.") == (
            "The header user stands twice, or so."
        )


def test_what_is_wrong_is_said_in_chinese(client: Client, house: House) -> None:
    group = UserGroup.objects.create(name="of the test")

    rule = send(
        client, page_of(RiskRule, "add"), name="new", kind="request", action="block", users="x"
    )
    budget = send(client, page_of(UserGroup, "change", group.pk), daily_budget_nanos="-1")

    assert "请输入 ID，每行一个：从 1 开始的整数。" in rule.content.decode()
    assert "金额不得低于 $0。" in budget.content.decode()
    assert not RiskRule.objects.filter(name="new").exists()


@pytest.mark.sqlite  # What a page says is decided by no database.
def test_what_scripts_of_a_page_say_is_in_chinese(client: Client) -> None:
    script = finders.find("admin/js/SelectFilter2.js")
    assert isinstance(script, str)
    said = re.findall(r"""\bgettext\((['"])(.*?)\1\)""", Path(script).read_text())

    answer = client.get("/admin/jsi18n/").content.decode()

    found = re.search(r"const newcatalog = ({.*?});\n", answer, re.DOTALL)
    assert found is not None
    catalogue = json.loads(found[1])
    assert len(said) > 10
    assert [text for _, text in said if not _is_chinese(catalogue.get(text, ""))] == []


@pytest.mark.sqlite  # As above.
def test_pages_of_ours_beside_djangos_say_all_in_chinese(client: Client, house: House) -> None:
    asked = client.post(f"/admin/users/user/{house.user.pk}/adjust-balance/", {"amount": "x"})
    new = client.get(page_of(User, "add"))

    assert "请更正以下错误。" in asked.content.decode()
    assert "Please" not in asked.content.decode()
    assert "创建用户后" in new.content.decode()
    assert "After you" not in new.content.decode()


def test_pages_in_english_stay_english(house: House) -> None:
    browser = Client()
    browser.force_login(house.root)

    page = browser.get(page_of(User, "change", house.user.pk)).content.decode()

    assert "The most this user may spend in a day (UTC), in USD; empty: no budget." in page
    assert not _is_chinese(page)


def test_rest_tells_its_own_texts_in_english(house: House) -> None:
    client = rest_client(house.root)

    answer = client.get("/api/admin/users/987654321", headers={"accept-language": "zh-CN"})

    assert answer.json() == {"detail": "Not found.", "code": "not_found"}
