"""Mail and IP addresses: found whatever stands around them; examples and versions stay."""

import pytest

from tests.data.privacy.builders import AROUND, found_in, seconds_of_search

PRIVATE = [
    ("email", "ada.lovelace+math@analytical.co.uk"),
    ("email", "chen_99@mail2.sysu.edu.cn"),
    ("ip_address", "52.94.236.248"),
    ("ip_address", "2a00:1450:4001:82b::200e"),
    ("ip_address", "2600:1f18:22ba:8c00:ba86:a05e:a5ba:00fd"),
]


@pytest.mark.parametrize(("rule", "private"), PRIVATE)
@pytest.mark.parametrize("around", AROUND)
def test_private_data_is_found(rule: str, private: str, around: str) -> None:
    assert found_in(around.format(private)) == [(rule, private)]


INNOCENT = """
version 10.91.236.248
v2.94.236.48
torch==52.94.236.248
name-52.94.236.248.jar
Chrome/91.0.4472.124 Safari/537.36
Section 3.2.1.1
1.3.6.1.4.1.311.21.20
52.94.236.248.7
127.0.0.1 localhost 0.0.0.0 255.255.255.0 10.1.2.3 192.168.178.20 172.16.254.1 8.8.8.8 203.0.113.77
256.300.1.1
std::vector<int> a::b::c::d dead::beef
2001:db8:85a3:8d3:1319:8a2e:370:7348
fe80:3438:7667:5c77:ce27:18ff:fe7c:9bf1
12:34:56:78 00:1A:2B:3C:4D:5E
user@example.com me@mail.example.org you@yourdomain.com a@b.test your-service@project.iam.com
git@github.com:owner/name.git
@app.route npm install @types/node@18.1.0 logo@2x.png x@y.transpose foo@bar.js lodash@4.17.21
postgres://user:password@db.host.net/name
name@host @someone
"""


@pytest.mark.parametrize("text", INNOCENT.strip().split("\n"))
def test_what_only_looks_private_is_not_found(text: str) -> None:
    assert found_in(text) == []


@pytest.mark.parametrize(
    "text",
    [
        "a" * 200_000 + "@",
        "@" * 200_000,
        "a@a." * 50_000,
        "1." * 100_000,
        "::" * 100_000,
        "a:" * 100_000,
    ],
    ids=lambda text: text[:12],
)
def test_hostile_texts_take_linear_time(text: str) -> None:
    assert seconds_of_search(text) < 2
