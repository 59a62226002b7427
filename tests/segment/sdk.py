"""Sends messages.json by Segment's client for Python: sdk.py <host> <write key> [gzip]"""
import json
import pathlib
import sys
from datetime import datetime

from segment.analytics.client import Client

host, write_key, *options = sys.argv[1:]
text = pathlib.Path(__file__).with_name("messages.json").read_text()
given = json.loads(text.replace("{sdk}", "python").replace("{phone}", "+40 720 000 002"))
timestamp = datetime.fromisoformat(given["timestamp"].replace("Z", "+00:00"))
names = {"userId": "user_id", "groupId": "group_id", "previousId": "previous_id"}

failures = []
client = Client(
    write_key,
    host=host,
    gzip="gzip" in options,
    upload_size=20,
    max_retries=3,
    on_error=lambda error, batch: failures.append(error),
)
for message in given["messages"]:
    kind, message_id = message.pop("type"), message.pop("id")
    arguments = {names.get(name, name): value for name, value in message.items()}
    getattr(client, kind)(**arguments, message_id=f"python-{message_id}", timestamp=timestamp)
for i in range(given["bulk"]):
    properties, message_id = {"i": i}, f"python-bulk-{i}"
    client.track("python-1", "Page Scrolled", properties, message_id=message_id, timestamp=timestamp)
client.shutdown()
for failure in failures[:3]:
    print(failure, file=sys.stderr)
sys.exit(1 if failures else 0)
