"""What a person does with OpenAI's own client. Prints one JSON object, which the test looks at.

    python3 client.py TASK BASE_URL [SEED]
"""
import asyncio
import json
import random
import sys
import time

import openai

MODEL = "default"
GREEDY = {"temperature": 0.0}
SYSTEM = "You are the keeper of a lighthouse on a small island. You answer in one short sentence."


def chat(client, text, system=None, **more):
    messages = [{"role": "user", "content": text}]
    if system is not None:
        messages.insert(0, {"role": "system", "content": system})
    return client.chat.completions.create(model=MODEL, messages=messages, **GREEDY, **more)


def streamed(chunks):
    """The text of a stream, why it ended, and in how many pieces it came."""
    text, finish, pieces = "", None, 0
    for chunk in chunks:
        choice = chunk.choices[0]
        text += choice.delta.content or ""
        finish = choice.finish_reason or finish
        pieces += 1
    return {"text": text, "finish": finish, "pieces": pieces}


def refusal(action):
    try:
        action()
    except openai.APIStatusError as error:
        return {"status": error.status_code, "message": str(error.body["message"]), "param": error.body["param"]}
    except openai.APIError as error:
        return {"status": None, "message": error.message}
    return None


def talk(client):
    """One of everything."""
    question = "Name three things that can be seen from a lighthouse at night."
    whole = chat(client, question, max_tokens=24)
    short = chat(client, question, max_tokens=24, extra_body={"kv_cache": {"budget": "16"}})
    pinned = {"kv_cache": {"budget": "16", "pin": "system"}}
    completion = client.completions.create(model=MODEL, prompt="The sea is", max_tokens=12, **GREEDY)
    pieces = client.completions.create(model=MODEL, prompt="The sea is", max_tokens=12, stream=True, **GREEDY)
    return {
        "models": [model.id for model in client.models.list()],
        "model": whole.model,
        "text": whole.choices[0].message.content,
        "finish": whole.choices[0].finish_reason,
        "prompt_tokens": whole.usage.prompt_tokens,
        "completion_tokens": whole.usage.completion_tokens,
        "streamed": streamed(chat(client, question, max_tokens=24, stream=True)),
        "short": short.choices[0].message.content,
        "pinned": chat(client, question, system=SYSTEM, max_tokens=24, extra_body=pinned).choices[0].message.content,
        "unpinned": chat(client, question, system=SYSTEM, max_tokens=24, extra_body={"kv_cache": {"budget": "16"}}).choices[0].message.content,
        "completion": completion.choices[0].text,
        "completion_streamed": "".join(chunk.choices[0].text for chunk in pieces),
        "two": len(chat(client, question, max_tokens=4, n=2).choices),
        "stopped": chat(client, question, max_tokens=24, stop=["."]).choices[0].finish_reason,
    }


def mistakes(client):
    """What is refused, and in what words."""
    picture = [{"type": "image_url", "image_url": {"url": "file:///etc/hostname"}}]

    def body(**kv_cache):
        return lambda: chat(client, "Hello", max_tokens=4, extra_body={"kv_cache": kv_cache})

    return {
        "model": refusal(lambda: client.chat.completions.create(model="gpt-4", messages=[])),
        "field": refusal(body(bugdet="25%")),
        "budget": refusal(body(budget="lots")),
        "budget_policy": refusal(body(budget="3")),
        "budget_pool": refusal(body(budget="1000000")),
        "pin": refusal(body(pin="everything")),
        "shared_prefix": refusal(body(shared_prefix="document")),
        "shared_prefix_nothing": refusal(body(shared_prefix="system")),
        "pin_nothing": refusal(body(pin="system")),
        "pin_completion": refusal(lambda: client.completions.create(model=MODEL, prompt="x", extra_body={"kv_cache": {"pin": "system"}})),
        "media": refusal(lambda: client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": picture}])),
        "search": refusal(lambda: chat(client, "Hello", max_tokens=4, extra_body={"web_search_options": {}})),
        "several": refusal(lambda: list(chat(client, "Hello", max_tokens=4, n=2, stream=True))),
        "path": refusal(lambda: client.embeddings.create(model=MODEL, input="x", encoding_format="float")),
    }


def hopeless(client):
    """A prompt that no pool of this size ever holds."""
    long = "word " * 4000
    return {
        "whole": refusal(lambda: chat(client, long, max_tokens=4)),
        "streamed": refusal(lambda: streamed(chat(client, long, max_tokens=4, stream=True))),
    }


def full(client):
    """An answer that comes to the model's last position, and one that ends before it."""

    def ended(tokens, **more):
        # A token for each character.
        prompt = "ab" * 1010
        return client.completions.create(model=MODEL, prompt=prompt, max_tokens=tokens, **GREEDY, **more)

    def told(answer):
        return {"finish": answer.choices[0].finish_reason, "context_full": (answer.model_extra or {}).get("context_full")}

    return {
        "whole": told(ended(1000)),
        "streamed": told(list(ended(1000, stream=True))[-1]),
        "short": told(ended(2)),
    }


def hasty(client):
    """Clients that leave while their system prompt is tokenized, while they wait, and in their last forward pass."""
    rng = random.Random(0)
    left = 0
    for number in range(24):
        patience = rng.choice([0.01, 0.05, 0.2, 0.5])
        text = f"{number}: " + "Say what the sea is like today. " * 12
        try:
            chat(client.with_options(timeout=patience), text, system=SYSTEM, max_tokens=1)
        except openai.APITimeoutError:
            left += 1
    question = "Name three things that can be seen from a lighthouse at night."

    def answer(**kv_cache):
        made = chat(client, question, system=SYSTEM, max_tokens=24, extra_body={"kv_cache": kv_cache})
        return made.choices[0].message.content

    return {"left": left, "silent": answer(), "pinned": answer(pin="system"), "unpinned": answer(pin=0)}


def jobs(seed):
    """64 questions of mixed lengths, the same for the same seed."""
    rng = random.Random(seed)
    words = "sea light ship storm rock wave gull night star wind sail rope tide fog bell harbour".split()
    made = []
    for number in range(64):
        length = rng.choice([4, 12, 30, 60, 110])
        text = " ".join(rng.choice(words) for _ in range(length))
        made.append({
            "text": f"Story {number}: {text}. What happens next?",
            "tokens": rng.choice([6, 12, 20]),
            "stream": rng.random() < 0.5,
            "leaves": rng.random() < 0.25,
            "after": rng.randrange(0, 3),
            "delay": rng.random() * 0.5,
        })
    return made


async def one(client, job, leaves):
    """A job's text, or None if its client leaves: a streaming one after some pieces, another after a while."""
    messages = [{"role": "user", "content": job["text"]}]
    asked = client.chat.completions.create(
        model=MODEL, messages=messages, max_tokens=job["tokens"], stream=job["stream"], **GREEDY)
    if not job["stream"]:
        if leaves:
            try:
                await asyncio.wait_for(asked, job["delay"])
            except (asyncio.TimeoutError, openai.APITimeoutError):
                pass
            return None
        return (await asked).choices[0].message.content
    text, pieces = "", 0
    stream = await asked
    async for chunk in stream:
        if leaves and pieces >= job["after"]:
            await stream.close()
            return None
        text += chunk.choices[0].delta.content or ""
        pieces += 1
    return text


async def load(url, seed):
    """Every job alone, then all together with some clients leaving."""
    client = openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0, timeout=900)
    made = jobs(seed)
    begun = time.monotonic()
    alone = [await one(client, job, False) for job in made]
    between = time.monotonic()
    together = await asyncio.gather(*(one(client, job, job["leaves"]) for job in made))
    differ = [
        {"job": number, "alone": want, "together": got}
        for number, (job, want, got) in enumerate(zip(made, alone, together))
        if not job["leaves"] and got != want
    ]
    return {
        "seconds_alone": between - begun,
        "seconds_together": time.monotonic() - between,
        "stayed": sum(not job["leaves"] for job in made),
        "left": sum(job["leaves"] for job in made),
        "lengths": len({len(job["text"].split()) for job in made}),
        "different_answers": len(set(alone)),
        "differ": differ,
    }


def main():
    task, url = sys.argv[1:3]
    client = openai.OpenAI(base_url=url, api_key="none", max_retries=0, timeout=900)
    if task == "load":
        found = asyncio.run(load(url, int(sys.argv[3])))
    elif task == "long":
        found = {"text": chat(client, "Tell me everything about the sea.", max_tokens=int(sys.argv[3])).choices[0].message.content}
    else:
        found = {"talk": talk, "mistakes": mistakes, "hopeless": hopeless, "full": full, "hasty": hasty}[task](client)
    json.dump(found, sys.stdout)


main()
