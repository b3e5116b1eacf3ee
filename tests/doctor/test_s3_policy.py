"""The policy and the rules for a bucket."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from scanner.doctor.s3_policy import bucket_policy, lifecycle
from scanner.stores.s3 import Bucket

BUCKET = Bucket("quarantine", "site/", "https://s3.example.org")


def statement(policy: dict[str, Any], name: str) -> dict[str, Any]:
    [found] = [each for each in policy["Statement"] if each["Sid"] == name]
    return dict(found)


@pytest.mark.parametrize("bucket", [BUCKET, replace(BUCKET, endpoint_url=None, retention=3600.0)])
def test_the_scanner_neither_deletes_nor_reads_samples_nor_speaks_for_analysts(bucket: Bucket) -> None:
    policy = bucket_policy(bucket)
    objects = "arn:aws:s3:::quarantine/site/v1/objects/*"
    assert objects in statement(policy, "ScannerPuts")["Resource"]
    assert objects not in statement(policy, "ScannerReads")["Resource"]
    assert objects in statement(policy, "ScannerReadsNoSamples")["Resource"]
    assert "arn:aws:s3:::quarantine/site/v1/actions/*" not in statement(policy, "ScannerPuts")["Resource"]
    allowed = {
        action for each in policy["Statement"] if each["Effect"] == "Allow" for action in each["Action"]
    }
    assert not {action for action in allowed if "Delete" in action or "*" in action}
    assert ("s3:PutObjectRetention" in allowed) is (bucket.retention is not None)
    assert len(json.dumps(policy)) < 20_000  # what AWS takes


def test_at_aws_nobody_replaces_anything() -> None:
    once = statement(bucket_policy(replace(BUCKET, endpoint_url=None)), "NobodyReplaces")
    assert (once["Effect"], once["Principal"]) == ("Deny", "*")
    assert once["Condition"] == {"Null": {"s3:if-none-match": "true"}}


def test_samples_expire_and_the_audit_does_not() -> None:
    rules = {rule["Filter"]["Prefix"]: rule["Expiration"]["Days"] for rule in lifecycle(BUCKET)["Rules"]}
    assert rules["site/v1/objects/"] == 90
    assert rules["site/doctor/"] == 1
    assert not [prefix for prefix in rules if "audit" in prefix or "actions" in prefix]
