"""What a team might write itself: Alertmanager's webhook in FastAPI, and redis-py for a minimal switch of the active version.

For comparison only (benches/peers/main.rs): no guards, no incidents, fenced only by the active version.
"""

import json
import os
import time
from pathlib import Path

import redis.asyncio as redis
from fastapi import FastAPI
from pydantic import BaseModel

NAMESPACE = "{prompts}"

app = FastAPI()
store = redis.from_url(os.environ["REDIS_URL"], decode_responses=True)
switch = store.register_script(Path(__file__).with_name("switch.lua").read_text())


class Alert(BaseModel):
    status: str
    labels: dict[str, str]
    annotations: dict[str, str] = {}
    fingerprint: str = ""


class Delivery(BaseModel):
    alerts: list[Alert]


@app.post("/webhooks/alertmanager")
async def deliver(delivery: Delivery) -> dict:
    results = []
    for alert in delivery.alerts:
        results.append({"fingerprint": alert.fingerprint, "outcome": await handle(alert)})
    return {"results": results}


async def handle(alert: Alert) -> str:
    prompt, version = alert.labels["prompt"], alert.labels["version"]
    if alert.status != "firing" or alert.labels.get("severity") != "critical":
        return "ignored"
    active_key = f"{NAMESPACE}:active:{prompt}"
    active, good = await store.mget(active_key, f"{NAMESPACE}:good:{prompt}")
    if active != version or good is None:
        return "duplicate"
    now = int(time.time() * 1000)
    reason = f"{alert.labels.get('alertname')}: {alert.annotations.get('summary')}"
    switched = await switch(
        keys=[active_key, f"{NAMESPACE}:state:{prompt}", f"{NAMESPACE}:log:{prompt}", f"{NAMESPACE}:switches"],
        args=[
            version,
            good,
            prompt,
            reason,
            now,
            f"{NAMESPACE}:changes",
            json.dumps({"prompt": prompt, "from": version, "to": good, "at": now, "reason": reason}),
        ],
    )
    return "rolled_back" if switched else "moved"
