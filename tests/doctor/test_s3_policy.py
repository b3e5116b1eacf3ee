"""The policy and the rules for a bucket."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from scanner.doctor.s3_policy import MAINTENANCE, SCANNER, bucket_policy, lifecycle
from scanner.stores.s3 import Bucket

BUCKET = Bucket("quarantine", "site/", "https://s3.example.org")


def statement(policy: dict[str, Any], name: str) -> dict[str, Any]:
    [found] = [each for each in policy["Statement"] if each["Sid"] == name]
    return dict(found)


def allowed_by(statement: dict[str, Any]) -> list[str]:
    return list(statement["Action"]) if statement["Effect"] == "Allow" else []


@pytest.mark.parametrize("bucket", [BUCKET, replace(BUCKET, endpoint_url=None, retention=3600.0)])
def test_the_scanner_neither_deletes_nor_reads_samples_nor_speaks_for_analysts(bucket: Bucket) -> None:
    policy = bucket_policy(bucket)
    objects = "arn:aws:s3:::quarantine/site/v1/objects/*"
    assert objects in statement(policy, "ScannerPuts")["Resource"]
    assert objects not in statement(policy, "ScannerReads")["Resource"]
    assert objects in statement(policy, "ScannerReadsNoSamples")["Resource"]
    assert "arn:aws:s3:::quarantine/site/v1/actions/*" not in statement(policy, "ScannerPuts")["Resource"]
    scanners = [each for each in policy["Statement"] if each["Principal"] == {"AWS": [SCANNER]}]
    allowed = {action for each in scanners for action in allowed_by(each)}
    assert not {action for action in allowed if "Delete" in action or "Hold" in action or "*" in action}
    assert "s3:PutObjectLegalHold" in statement(policy, "ScannerTakesNothingBack")["Action"]
    assert ("s3:PutObjectRetention" in allowed) is (bucket.retention is not None)
    assert len(json.dumps(policy)) < 20_000  # what AWS takes


def test_at_aws_nobody_replaces_anything() -> None:
    once = statement(bucket_policy(replace(BUCKET, endpoint_url=None)), "NobodyReplaces")
    assert (once["Effect"], once["Principal"]) == ("Deny", "*")
    assert once["Condition"] == {"Null": {"s3:if-none-match": "true"}}


def test_people_hold_samples_and_maintenance_alone_deletes_and_never_the_chain() -> None:
    policy = bucket_policy(BUCKET)
    samples = "arn:aws:s3:::quarantine/site/v1/objects/*"
    assert statement(policy, "PeopleHold")["Resource"] == [samples]
    assert samples not in statement(policy, "PeopleSign")["Resource"]
    [deletes] = [each for each in policy["Statement"] if "s3:DeleteObject" in allowed_by(each)]
    assert deletes["Principal"] == {"AWS": [MAINTENANCE]}
    assert not [name for name in deletes["Resource"] if "audit" in name or "actions" in name]


def test_nothing_but_a_doctors_probes_goes_by_its_age() -> None:
    """A rule would take, or hide, what is held."""
    rules = {rule["Filter"]["Prefix"]: rule for rule in lifecycle(BUCKET)["Rules"]}
    assert [prefix for prefix, rule in rules.items() if "Days" in rule["Expiration"]] == ["site/doctor/"]
    assert rules["site/v1/objects/"]["NoncurrentVersionExpiration"] == {"NoncurrentDays": 1}
    assert not [prefix for prefix in rules if "audit" in prefix or "actions" in prefix]
