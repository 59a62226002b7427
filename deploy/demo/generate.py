#!/usr/bin/env python3
"""Writes members.jsonl and consumptions.jsonl, the data of `punchline demo`.

Rerun (needs Python 3.11, nothing else; the same bytes come out every time):

    python3 deploy/demo/generate.py            # writes both files and checks the counts below
    python3 deploy/demo/generate.py --check    # writes nothing; fails if the files are not what it would write

members.jsonl holds one member a line, as {"identifiers", "profile", "joined", "blocked"}: whoever is
`joined` has a card of the demo's campaign; whoever is `blocked` is blocked before the first consumption.
consumptions.jsonl holds one consumption a line, in the JSON form of POST .../consumption, in order of time
of arrival.

EXPECTED below says what a server must make of them, if it takes the lines in their order (or with fewer than
REPEAT_DISTANCE_MIN in flight: a repeat with other content never stands nearer to its first than that).
The counts are found by a fold of its own over campaign.toml, which knows nothing of Punchline's code.
"""

import datetime as dt
import json
import pathlib
import random
import sys
import tomllib

# What a server must count. Checked at every run.
EXPECTED = {
    "members": 180,
    "members joined": 168,
    "members blocked": 8,
    "lines": 3060,
    "accepted": 2700,
    "refused": 360,
    "CONSUMPTION_EXISTS": 144,
    "CONSUMPTION_EXISTS_WITH_DIFFERENT_CONTENT": 32,
    "ACCOUNT_NOT_FOUND": 69,
    "USER_BLOCKED": 60,
    "USER_HAS_NO_CARDS": 55,
    "points": 161275,
    "coins": 4090,
    "stamps": 1895,
    "rows completed": 124,
}

SEED = 20260801
FROM = dt.datetime(2026, 8, 1, tzinfo=dt.timezone.utc)
DAYS = 92  # 2026-08-01 to 2026-10-31
REPEAT_DISTANCE_MIN = 300
HERE = pathlib.Path(__file__).resolve().parent

FIRST_NAMES = (
    "Ana Andrei Ioana Mihai Elena Radu Maria Vlad Cristina Stefan Gabriela Alexandru Irina Bogdan Daniela Ion "
    "Aigerim Nurlan Dana Arman Zarina Timur Madina Yerlan Saule Daniyar Ayesha Bilal Fatima Hamza Sana Usman"
).split()
LAST_NAMES = (
    "Popescu Ionescu Radu Dumitru Stan Gheorghe Matei Ciobanu Rusu Marin Akhmetov Suleimenov Nurgaliyev "
    "Ospanova Sadykov Iskakova Khan Malik Hussain Qureshi Siddiqui Raza"
).split()
LOCALES = ["ro-RO", "ro-RO", "ro-RO", "kk-KZ", "ru-KZ", "ur-PK", "en-PK"]

# What people do: weight, SKU, name, most units at once, hours of the day.
COFFEES = [
    (30, "coffee_espresso", "Espresso", 3),
    (24, "coffee_cappuccino", "Cappuccino", 3),
    (18, "coffee_flat_white", "Flat white", 2),
    (14, "coffee_large", "Large filter coffee", 4),
]
TEAS = [(10, "tea_green", "Green tea", 2), (8, "tea_earl_grey", "Earl Grey", 2), (6, "tea_mint", "Mint tea", 2)]
CANS = [
    (22, "velo_can_ice", "VELO Ice Cool", 5),
    (16, "velo_can_berry", "VELO Berry Frost", 5),
    (8, "velo_can_mango", "VELO Mango Flame", 6),
    (6, "velo_can_yuzu", "VELO Yuzu Breeze", 6),
]
OTHERS = [(5, "velo_starter_kit", "VELO starter kit", 2), (4, "sandwich_club", "Club sandwich", 2), (2, "gift_mug", "Mug", 1)]
ACTIONS = [
    (4, "glo_kz_deviceregist"),
    (30, "velo_pk_article_thr"),
    (12, "velo_pk_product_review"),
    (9, "velo_pk_poll_location"),
    (9, "velo_pk_poll_experience"),
    (9, "velo_pk_poll_strength"),
]


def pick(rng, table):
    """One row of a table whose first column is the weight."""
    return rng.choices(table, weights=[row[0] for row in table])[0]


def members(rng):
    """180 members; numbers 0–167 have joined, 60–66 and 170 are blocked."""
    made = []
    for number in range(180):
        first, last = rng.choice(FIRST_NAMES), rng.choice(LAST_NAMES)
        email = f"{first}.{last}.{number:03}@example.com".lower()
        phone = f"40720{number:03}{rng.randrange(1000):03}"
        known_by = rng.random()
        identifiers = []
        if known_by < 0.9:
            identifiers.append({"key": "phoneNumber", "value": phone})
        if known_by > 0.15:
            identifiers.append({"key": "email", "value": email})
        born = dt.date(1962, 1, 1) + dt.timedelta(days=rng.randrange(45 * 365))
        made.append(
            {
                "identifiers": identifiers,
                "profile": {
                    "firstName": first,
                    "lastName": last,
                    "birthDate": born.isoformat(),
                    "locale": rng.choice(LOCALES),
                    "marketingConsent": rng.random() < 0.6,
                },
                "joined": number < 168,
                "blocked": 60 <= number <= 66 or number == 170,
            }
        )
    return made


def written(rng, identifier):
    """An identifier as cash registers and apps write it: not always as it was registered."""
    key, value = identifier["key"], identifier["value"]
    chance = rng.random()
    if key == "phoneNumber" and chance < 0.15:
        value = "+" + value
    elif key == "phoneNumber" and chance < 0.22:
        value = f"+{value[:2]} {value[2:5]} {value[5:8]} {value[8:]}"
    elif key == "email" and chance < 0.12:
        value = value.title()
    return {"key": key, "value": value}


def moment(rng, hours):
    """A second within the three months, at one of these hours."""
    return FROM + dt.timedelta(
        days=rng.randrange(DAYS), hours=rng.choice(hours), minutes=rng.randrange(60), seconds=rng.randrange(60)
    )


def consumption(rng, identifiers):
    """One visit or one action, and its moment."""
    kind = rng.random()
    if kind < 0.34:  # an action in the app: a dynamic event, quantity 1, named after its SKU
        sku = pick(rng, ACTIONS)[1]
        lines = [{"sku": sku, "productName": sku, "quantity": 1}]
        at, prefix = moment(rng, range(8, 23)), "I"
    else:
        if kind < 0.74:  # the café
            tables, at, prefix = [COFFEES, COFFEES, TEAS], moment(rng, [6, 7, 7, 8, 8, 9, 10, 12, 13, 15, 16]), "R"
        else:  # the kiosk
            tables, at, prefix = [CANS, CANS, OTHERS], moment(rng, range(9, 21)), "K"
        lines = []
        for _ in range(rng.choices([1, 2, 3], weights=[70, 24, 6])[0]):
            _, sku, name, units = pick(rng, rng.choice(tables))
            # Few at once, now and then a round for the office.
            quantity = rng.randrange(8, 16) if rng.random() < 0.02 else min(rng.randrange(1, units + 1), rng.randrange(1, units + 1))
            lines.append({"sku": sku, "productName": name, "quantity": quantity})
    date = at.strftime("%Y%m%dT%H:%M:%SZ")
    if prefix == "K":
        date = at.strftime("%Y-%m-%dT%H:%M:%SZ")
    elif rng.random() < 0.05:
        date = at.strftime("%Y%m%dT%H%M%SZ")
    return at, {
        "consumptionId": f"{prefix}{rng.randrange(10**14, 10**15)}",
        "consumptionDate": date,
        "identifiers": identifiers,
        "consumptionLines": lines,
    }


def named(rng, member):
    """By what a consumption names this member: mostly one identifier, sometimes all."""
    known = member["identifiers"]
    chosen = known if rng.random() < 0.2 else [rng.choice(known)]
    return [written(rng, identifier) for identifier in chosen]


def consumptions(rng, people):
    """All lines, in order."""
    active = [m for m in people if m["joined"] and not m["blocked"]]
    blocked = [m for m in people if m["blocked"]]
    cardless = [m for m in people if not m["joined"] and not m["blocked"]]
    strangers = [[{"key": "phoneNumber", "value": f"40799{n:06}"}] for n in range(15)]
    strangers += [[{"key": "email", "value": f"guest.{n}@example.org"}] for n in range(15)]
    # Some come every day, most now and then; everyone at least once.
    weights = [1 / (1 + rank) ** 0.6 for rank in range(len(active))]
    rng.shuffle(weights)
    who = active + rng.choices(active, weights=weights, k=2700 - len(active))
    made = [consumption(rng, named(rng, m)) for m in who]
    made += [consumption(rng, named(rng, rng.choice(blocked))) for _ in range(58)]
    made += [consumption(rng, named(rng, rng.choice(cardless))) for _ in range(54)]
    made += [consumption(rng, rng.choice(strangers)) for _ in range(64)]
    made.sort(key=lambda pair: pair[0])
    lines = [c for _, c in made]
    # Repeats. Most come at once (an answer got lost), some days later (a file was sent again).
    for _ in range(150):
        at = rng.randrange(len(lines))
        behind = rng.randrange(1, 6) if rng.random() < 0.7 else rng.randrange(50, 900)
        lines.insert(min(at + behind, len(lines)), lines[at])
    for _ in range(34):
        at = rng.randrange(len(lines) - REPEAT_DISTANCE_MIN - 100)
        changed = json.loads(json.dumps(lines[at]))
        match rng.randrange(3):
            case 0:
                changed["consumptionLines"][0]["quantity"] += 1
            case 1:
                changed["consumptionLines"].append({"sku": "coffee_espresso", "productName": "Espresso", "quantity": 1})
            case _:
                changed["consumptionLines"][0]["sku"] = "tea_mint"
        lines.insert(rng.randrange(at + REPEAT_DISTANCE_MIN, len(lines)), changed)
    return lines


def instant(text):
    """The moment that one of the three forms of a date means."""
    for form in ("%Y%m%dT%H:%M:%SZ", "%Y-%m-%dT%H:%M:%SZ", "%Y%m%dT%H%M%SZ"):
        try:
            return dt.datetime.strptime(text, form).replace(tzinfo=dt.timezone.utc)
        except ValueError:
            continue
    raise ValueError(text)


def comparable(identifier):
    """An identifier as it is compared."""
    value = identifier["value"]
    digits = "".join(c for c in value if c.isdigit())
    return identifier["key"], digits if identifier["key"] == "phoneNumber" else value.strip().lower()


def fold(people, lines, campaign):
    """What a server must count."""
    counts = dict.fromkeys(EXPECTED, 0)
    counts["members"] = len(people)
    counts["members joined"] = sum(m["joined"] for m in people)
    counts["members blocked"] = sum(m["blocked"] for m in people)
    counts["lines"] = len(lines)
    known = {comparable(i): n for n, m in enumerate(people) for i in m["identifiers"]}
    assert len(known) == sum(len(m["identifiers"]) for m in people), "identifiers are unique"
    row_length = {p["id"]: p["row_length"] for p in campaign["punchcards"]}
    seen, used, stamps = {}, {}, {}

    def refuse(reason):
        counts["refused"] += 1
        counts[reason] += 1

    for line in lines:
        content = (
            instant(line["consumptionDate"]),
            sorted(map(comparable, line["identifiers"])),
            [(one["sku"], one["quantity"]) for one in line["consumptionLines"]],
        )
        number = line["consumptionId"]
        if number in seen:
            same = seen[number] == content
            refuse("CONSUMPTION_EXISTS" if same else "CONSUMPTION_EXISTS_WITH_DIFFERENT_CONTENT")
            continue
        owners = {known.get(comparable(i)) for i in line["identifiers"]} - {None}
        if not owners:
            refuse("ACCOUNT_NOT_FOUND")
            continue
        (owner,) = owners
        if people[owner]["blocked"]:
            refuse("USER_BLOCKED")
            continue
        if not people[owner]["joined"]:
            refuse("USER_HAS_NO_CARDS")
            continue
        seen[number] = content
        counts["accepted"] += 1
        for one in line["consumptionLines"]:
            for rule in campaign["rules"]:
                if not (
                    one["sku"] == rule.get("sku")
                    or one["sku"] in rule.get("skus", [])
                    or ("sku_prefix" in rule and one["sku"].startswith(rule["sku_prefix"]))
                ):
                    continue
                units, at = one["quantity"], content[0]
                periods = {"day": at.date(), "week": at.isocalendar()[:2], "month": (at.year, at.month), "campaign": 0}
                slots = [((owner, rule["id"], c["period"], periods[c["period"]]), c) for c in rule.get("caps", [])]
                for slot, cap in slots:
                    units = min(units, cap["units_max"] - used.get(slot, 0))
                for slot, _ in slots:
                    used[slot] = used.get(slot, 0) + units
                counts["points"] += units * rule.get("points", 0)
                counts["coins"] += units * rule.get("coins", 0)
                if "stamps" in rule and units:
                    earned = units * rule["stamps"]["per_unit"]
                    key = owner, rule["stamps"]["punchcard"]
                    stamps[key] = stamps.get(key, 0) + earned
                    counts["stamps"] += earned
    counts["rows completed"] = sum(n // row_length[card] for (_, card), n in stamps.items())
    return counts


def jsonl(rows):
    return "".join(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n" for row in rows)


def main():
    rng = random.Random(SEED)
    people = members(rng)
    lines = consumptions(rng, people)
    campaign = tomllib.loads((HERE / "campaign.toml").read_text())
    hit = {one["sku"] for line in lines for one in line["consumptionLines"]}
    for rule in campaign["rules"]:
        wanted = rule.get("skus", [rule.get("sku")])
        prefix = rule.get("sku_prefix")
        assert any(s in hit for s in wanted) or (prefix and any(s.startswith(prefix) for s in hit)), rule["id"]
    counts = fold(people, lines, campaign)
    files = {HERE / "members.jsonl": jsonl(people), HERE / "consumptions.jsonl": jsonl(lines)}
    failed = counts != EXPECTED
    for path, text in files.items():
        if "--check" not in sys.argv:
            path.write_text(text)
        elif not path.exists() or path.read_text() != text:
            print(f"{path.name} is not what generate.py writes", file=sys.stderr)
            failed = True
    for name, count in counts.items():
        print(f"{name:45} {count:8}" + ("" if count == EXPECTED[name] else f"   EXPECTED {EXPECTED[name]}"))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
