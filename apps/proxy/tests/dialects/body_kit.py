"""Requests made up in each dialect, in the one form that our writers give them.

Over 400 lines because it makes up bodies for every dialect by the same parts.
"""

from typing import Any

from hypothesis import strategies as st

texts = st.text(min_size=1, max_size=8)
# Blanks alone are not told to Anthropic.
words = texts.filter(str.strip)
names = st.from_regex(r"[a-zA-Z0-9_-]{1,12}", fullmatch=True)
marks = st.sampled_from(
    (
        {},
        {"cache_control": {"type": "ephemeral"}},
        {"cache_control": {"type": "ephemeral", "ttl": "1h"}},
    )
)
schemas = st.dictionaries(names, st.just({"type": "string"})).map(
    lambda properties: {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
)
arguments = st.dictionaries(names, st.integers(-(2**53), 2**53) | texts | st.booleans(), max_size=3)
base64 = st.binary(min_size=1, max_size=6).map(lambda raw: raw.hex())


def some(**members: Any) -> st.SearchStrategy[dict[str, Any]]:
    """Return objects with any of these members."""
    return st.fixed_dictionaries({}, optional=members)


def both(*parts: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """Return the members of all objects in one."""
    return st.tuples(*parts).map(
        lambda found: {key: value for part in found for key, value in part.items()}
    )


def content(
    parts: st.SearchStrategy[dict[str, Any]], texts: st.SearchStrategy[str] = texts
) -> st.SearchStrategy[Any]:
    """Return a text, or parts that are more than one text."""
    return texts | st.lists(parts, min_size=2, max_size=3)


# OpenAI's Chat Completions.

openai_text = both(st.fixed_dictionaries({"type": st.just("text"), "text": texts}), marks)
openai_part = (
    openai_text
    | base64.map(
        lambda data: {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}
    )
    | st.just(
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png", "detail": "low"}}
    )
    | base64.map(
        lambda data: {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}
    )
    | base64.map(
        lambda data: {
            "type": "file",
            "file": {"filename": "a.pdf", "file_data": f"data:application/pdf;base64,{data}"},
        }
    )
)
openai_call = st.builds(
    lambda identifier, name, told: {
        "id": identifier,
        "type": "function",
        "function": {"name": name, "arguments": told},
    },
    names,
    names,
    texts,
)
openai_message = (
    st.fixed_dictionaries({"role": st.just("user"), "content": content(openai_part)})
    | st.fixed_dictionaries({"role": st.just("system"), "content": content(openai_text)})
    | both(
        st.fixed_dictionaries(
            {"role": st.just("assistant"), "content": st.none() | content(openai_text)}
        ),
        some(
            reasoning_content=texts,
            refusal=texts,
            tool_calls=st.lists(openai_call, min_size=1, max_size=2),
        ),
    ).filter(lambda message: message != {"role": "assistant", "content": None})
    | both(
        st.fixed_dictionaries(
            {"role": st.just("tool"), "tool_call_id": names, "content": content(openai_text)}
        ),
        marks,
    )
)
openai_tool = both(
    st.builds(
        lambda name, told: {"type": "function", "function": {"name": name, **told}},
        names,
        some(description=texts, parameters=schemas, strict=st.booleans()),
    ),
    marks,
)


def openai_messages(found: tuple[list[dict[str, Any]], dict[str, Any]]) -> list[dict[str, Any]]:
    """Return messages that begin with one of the user, as those of the system become one."""
    messages, first = found
    return [first, *messages]


openai_body = both(
    st.fixed_dictionaries(
        {
            "model": st.just("m"),
            "messages": st.tuples(
                st.lists(openai_message, max_size=4),
                st.fixed_dictionaries({"role": st.just("user"), "content": content(openai_part)}),
            ).map(openai_messages),
        }
    ),
    some(
        max_completion_tokens=st.integers(1, 10**6),
        temperature=st.floats(0, 2),
        top_p=st.floats(0, 1),
        top_k=st.integers(0, 100),
        frequency_penalty=st.floats(-2, 2),
        presence_penalty=st.floats(-2, 2),
        stop=st.lists(texts, min_size=1, max_size=4),
        n=st.integers(2, 9),
        seed=st.integers(-9, 9),
        reasoning_effort=st.sampled_from(
            ("none", "minimal", "low", "medium", "high", "xhigh", "max")
        ),
        response_format=st.just({"type": "json_object"})
        | schemas.map(
            lambda schema: {
                "type": "json_schema",
                "json_schema": {"name": "a", "schema": schema, "description": "b", "strict": True},
            }
        ),
        user=texts,
        verbosity=st.sampled_from(("low", "high")),
        metadata=st.dictionaries(names, texts, min_size=1, max_size=2),
        service_tier=st.just("default"),
    ),
    st.sampled_from(({}, {"stream": True, "stream_options": {"include_usage": True}})),
    st.sampled_from(({}, {"choice": True})).flatmap(
        lambda chosen: (
            both(
                st.fixed_dictionaries({"tools": st.lists(openai_tool, min_size=1, max_size=2)}),
                some(
                    parallel_tool_calls=st.booleans(),
                    tool_choice=st.sampled_from(("auto", "none", "required"))
                    | names.map(lambda name: {"type": "function", "function": {"name": name}}),
                ),
            )
            if chosen
            else st.just({})
        )
    ),
)


# Anthropic's Messages.

anthropic_text = both(st.fixed_dictionaries({"type": st.just("text"), "text": words}), marks)
anthropic_image = both(
    st.fixed_dictionaries(
        {
            "type": st.just("image"),
            "source": st.just({"type": "url", "url": "https://example.com/a.png"})
            | base64.map(lambda data: {"type": "base64", "media_type": "image/png", "data": data}),
        }
    ),
    marks,
)
anthropic_document = both(
    st.fixed_dictionaries(
        {
            "type": st.just("document"),
            "source": st.just({"type": "url", "url": "https://example.com/a.pdf"})
            | texts.map(lambda text: {"type": "text", "media_type": "text/plain", "data": text})
            | base64.map(
                lambda data: {"type": "base64", "media_type": "application/pdf", "data": data}
            ),
        }
    ),
    some(title=texts, context=texts),
    marks,
)
anthropic_result = both(
    st.fixed_dictionaries({"type": st.just("tool_result"), "tool_use_id": names}),
    some(is_error=st.just(True), content=content(anthropic_text | anthropic_image, words)),
    marks,
)
anthropic_use = both(
    st.fixed_dictionaries(
        {"type": st.just("tool_use"), "id": names, "name": names, "input": arguments}
    ),
    marks,
)
anthropic_thought = st.fixed_dictionaries(
    {"type": st.just("thinking"), "thinking": texts, "signature": texts}
) | st.fixed_dictionaries({"type": st.just("redacted_thinking"), "data": texts})
# What tools answered comes first.
anthropic_user = words | st.tuples(
    st.lists(anthropic_result, max_size=2),
    st.lists(anthropic_text | anthropic_image | anthropic_document, min_size=2, max_size=3),
).map(lambda found: [*found[0], *found[1]])
anthropic_assistant = words | st.lists(
    anthropic_text | anthropic_use | anthropic_thought, min_size=2, max_size=3
)
anthropic_turns = st.lists(st.tuples(anthropic_user, anthropic_assistant), max_size=2).flatmap(
    lambda pairs: anthropic_user.map(
        lambda last: (
            [
                {"role": role, "content": said}
                for pair in pairs
                for role, said in zip(("user", "assistant"), pair, strict=True)
            ]
            + [{"role": "user", "content": last}]
        )
    )
)
anthropic_tool = both(
    st.fixed_dictionaries({"name": names, "input_schema": schemas}),
    some(description=texts, strict=st.booleans()),
    marks,
)
anthropic_body = both(
    st.fixed_dictionaries(
        {"model": st.just("m"), "max_tokens": st.integers(1, 10**6), "messages": anthropic_turns}
    ),
    some(
        system=content(anthropic_text, words),
        temperature=st.floats(0, 1),
        top_p=st.floats(0, 1),
        top_k=st.integers(0, 100),
        stop_sequences=st.lists(names, min_size=1, max_size=6),
        metadata=texts.map(lambda user: {"user_id": user}),
        service_tier=st.just("standard_only"),
        stream=st.just(True),
        output_config=some(
            format=schemas.map(lambda schema: {"type": "json_schema", "schema": schema}),
            effort=st.sampled_from(("low", "medium", "high", "xhigh", "max")),
        ).filter(bool),
    ),
    st.just({})
    | both(
        st.fixed_dictionaries({"tools": st.lists(anthropic_tool, min_size=1, max_size=2)}),
        some(
            tool_choice=both(
                st.sampled_from(({"type": "auto"}, {"type": "any"}, {"type": "tool", "name": "a"})),
                some(disable_parallel_tool_use=st.booleans()),
            )
            | st.just({"type": "none"}),
        ),
    ),
    marks,
)


# Google's generateContent.

gemini_media = st.sampled_from(
    (
        {"inlineData": {"mimeType": "image/png", "data": "AA=="}},
        {"inlineData": {"mimeType": "application/pdf", "data": "AA=="}},
        {"inlineData": {"mimeType": "audio/wav", "data": "AA=="}},
        {"fileData": {"mimeType": "image/png", "fileUri": "https://example.com/a.png"}},
        {"fileData": {"mimeType": "application/pdf", "fileUri": "https://example.com/a"}},
    )
)
gemini_text = texts.map(lambda text: {"text": text})
gemini_thought = texts.map(lambda text: {"text": text, "thought": True})


def gemini_step(found: tuple[list[Any], list[Any], list[Any]]) -> list[dict[str, Any]]:
    """Return what a model says and calls, and what it is answered: all calls have other ids."""
    said, calls, answers = found
    called = [
        {"functionCall": {"id": f"{name}-{place}", "name": name, "args": told}, **signed}
        for place, (name, told, signed) in enumerate(calls)
    ]
    answered = [
        {"functionResponse": {**call["functionCall"], "response": answer}}
        for call, answer in zip(called, answers, strict=False)
    ]
    for told in answered:
        del told["functionResponse"]["args"]
    return [
        {"role": "model", "parts": [*said, *called]},
        {"role": "user", "parts": [*answered, {"text": "Go on."}]},
    ]


gemini_steps = st.tuples(
    # A signature goes on to the first call, and thoughts that follow each other are one.
    st.tuples(
        st.lists(gemini_thought, max_size=1), st.lists(gemini_text, min_size=1, max_size=2)
    ).map(lambda found: [*found[0], *found[1]]),
    st.lists(
        st.tuples(
            names, arguments, some(thoughtSignature=base64.map(lambda data: f"{data}signed"))
        ),
        max_size=3,
    ),
    st.lists(
        texts.map(lambda text: {"output": text}) | texts.map(lambda text: {"error": text}),
        min_size=3,
        max_size=3,
    ),
).map(gemini_step)
gemini_body = both(
    st.fixed_dictionaries(
        {
            "model": st.just("m"),
            "contents": st.tuples(
                st.lists(gemini_text | gemini_media, min_size=1, max_size=3),
                st.lists(gemini_steps, max_size=2),
            ).map(
                lambda found: [
                    {"role": "user", "parts": found[0]},
                    *(turn for step in found[1] for turn in step),
                ]
            ),
        }
    ),
    some(
        systemInstruction=st.lists(gemini_text, min_size=1, max_size=2).map(
            lambda parts: {"parts": parts}
        ),
        generationConfig=some(
            maxOutputTokens=st.integers(1, 10**6),
            temperature=st.floats(0, 2),
            topP=st.floats(0, 1),
            topK=st.integers(0, 100),
            seed=st.integers(-9, 9),
            frequencyPenalty=st.floats(-2, 2),
            presencePenalty=st.floats(-2, 2),
            stopSequences=st.lists(texts, min_size=1, max_size=5),
            thinkingConfig=st.sampled_from(
                (
                    {"thinkingLevel": "LOW"},
                    {"thinkingLevel": "HIGH", "includeThoughts": True},
                    {"includeThoughts": True},
                )
            ),
        ).filter(bool),
        serviceTier=st.just("standard"),
        stream=st.just(True),
    ),
    st.just({})
    | both(
        st.fixed_dictionaries(
            {
                "tools": st.lists(
                    both(
                        st.fixed_dictionaries({"name": names}),
                        some(description=texts, parametersJsonSchema=schemas),
                    ),
                    min_size=1,
                    max_size=2,
                ).map(lambda declared: [{"functionDeclarations": declared}])
            }
        ),
        some(
            toolConfig=st.sampled_from(
                (
                    {"mode": "AUTO"},
                    {"mode": "ANY"},
                    {"mode": "NONE"},
                    {"mode": "ANY", "allowedFunctionNames": ["a"]},
                )
            ).map(lambda calling: {"functionCallingConfig": calling}),
        ),
    ),
)


# OpenAI's Responses.

responses_text = texts.map(lambda text: {"type": "input_text", "text": text})
responses_image = base64.map(
    lambda data: {
        "type": "input_image",
        "image_url": f"data:image/png;base64,{data}",
        "detail": "auto",
    }
) | st.just({"type": "input_image", "image_url": "https://example.com/a.png", "detail": "low"})
responses_file = base64.map(
    lambda data: {
        "type": "input_file",
        "filename": "a.pdf",
        "file_data": f"data:application/pdf;base64,{data}",
    }
) | st.just({"type": "input_file", "file_url": "https://example.com/a.pdf", "filename": "a.pdf"})
responses_sound = base64.map(
    lambda data: {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}
)
responses_user = st.fixed_dictionaries(
    {
        "role": st.just("user"),
        "content": content(responses_text | responses_image | responses_file | responses_sound),
    }
)
responses_system = st.fixed_dictionaries(
    {"role": st.just("system"), "content": content(responses_text)}
)
responses_said = st.fixed_dictionaries(
    {
        "role": st.just("assistant"),
        "content": content(
            texts.map(lambda text: {"type": "output_text", "text": text})
            | texts.map(lambda text: {"type": "refusal", "refusal": text})
        ),
    }
)
responses_call = st.fixed_dictionaries(
    {"type": st.just("function_call"), "call_id": names, "name": names, "arguments": texts}
)
responses_thought = st.builds(
    lambda text, sealed: {
        "type": "reasoning",
        "summary": [{"type": "summary_text", "text": text}],
        "encrypted_content": sealed,
    },
    texts,
    names,
)
responses_result = st.fixed_dictionaries(
    {
        "type": st.just("function_call_output"),
        "call_id": names,
        "output": content(responses_text | responses_image | responses_file),
    }
)
# Messages of the model that follow each other would become one.
responses_answer = st.lists(responses_call | responses_thought, max_size=2).flatmap(
    lambda items: responses_said.map(lambda said: [said, *items])
)
responses_input = st.lists(
    responses_answer.flatmap(
        lambda said: (responses_user | responses_system | responses_result).map(
            lambda heard: [*said, heard]
        )
    ),
    max_size=3,
).flatmap(
    lambda turns: responses_user.map(
        lambda first: [first, *(item for turn in turns for item in turn)]
    )
)
responses_tool = st.builds(
    lambda name, told, strict: {"type": "function", "name": name, **told, "strict": strict},
    names,
    both(st.fixed_dictionaries({"parameters": st.none() | schemas}), some(description=texts)),
    st.booleans(),
)
responses_body = both(
    st.fixed_dictionaries(
        {"model": st.just("m"), "input": responses_input, "store": st.just(False)}
    ),
    some(
        instructions=texts,
        max_output_tokens=st.integers(16, 10**6),
        temperature=st.floats(0, 2),
        top_p=st.floats(0, 1),
        text=some(
            format=st.just({"type": "json_object"})
            | st.builds(
                lambda schema, strict: {
                    "type": "json_schema",
                    "name": "a",
                    "schema": schema,
                    "description": "b",
                    "strict": strict,
                },
                schemas,
                st.booleans(),
            ),
            verbosity=st.sampled_from(("low", "high")),
        ).filter(bool),
        user=texts,
        metadata=st.dictionaries(names, texts, min_size=1, max_size=2),
        service_tier=st.just("default"),
        stream=st.just(True),
    ),
    st.sampled_from(("none", "minimal", "low", "medium", "high", "xhigh", "max", None)).map(
        lambda effort: (
            {}
            if effort is None
            else {"reasoning": {"effort": "none"}}
            if effort == "none"
            else {
                "reasoning": {"effort": effort, "summary": "auto"},
                "include": ["reasoning.encrypted_content"],
            }
        )
    ),
    st.just({})
    | both(
        st.fixed_dictionaries(
            {
                "tools": st.lists(
                    responses_tool, min_size=1, max_size=2, unique_by=lambda tool: tool["name"]
                )
            }
        ),
        some(
            parallel_tool_calls=st.booleans(),
            tool_choice=st.sampled_from(("auto", "none", "required"))
            | names.map(lambda name: {"type": "function", "name": name}),
        ),
    ),
)
