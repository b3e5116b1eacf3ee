"""What to put in force at the bucket: who may do what there, and what goes by itself."""

from __future__ import annotations

from typing import Any

from scanner.quarantine.layout import ACTIONS, AUDIT, DELIVERIES, DETECTIONS, MARKERS, NONCES, OBJECTS
from scanner.stores.s3 import Bucket

# To be replaced by the scanner's own.
SCANNER = "arn:aws:iam::111122223333:user/media-scanner"
DOCTOR = "doctor"
_DAYS = 90
_PUTS = (OBJECTS, DETECTIONS, DELIVERIES, AUDIT, NONCES, DOCTOR)
_GETS = (ACTIONS, AUDIT, DOCTOR)
_NEVER_GETS = (OBJECTS, DETECTIONS, DELIVERIES, MARKERS)
_NEVER = (
    "s3:DeleteObject",
    "s3:DeleteObjectVersion",
    "s3:BypassGovernanceRetention",
    "s3:PutBucketPolicy",
    "s3:PutLifecycleConfiguration",
)
_EXPIRE = (OBJECTS, DETECTIONS, DELIVERIES, MARKERS)
_Statement = dict[str, Any]


def bucket_policy(bucket: Bucket) -> _Statement:
    """For `put-bucket-policy`: a scanner whose key is stolen reads no sample, and takes nothing back."""
    puts = ["s3:PutObject"] + (["s3:PutObjectRetention"] if bucket.retention is not None else [])
    looks = ["s3:ListBucket", "s3:GetBucketObjectLockConfiguration"]
    statements = [
        _statement("ScannerPuts", "Allow", puts, _below(bucket, _PUTS)),
        _statement("ScannerReads", "Allow", ["s3:GetObject"], _below(bucket, _GETS)),
        _statement("ScannerLists", "Allow", looks, [_arn(bucket)]),
        _statement("ScannerReadsNoSamples", "Deny", ["s3:GetObject"], _below(bucket, _NEVER_GETS)),
        _statement("ScannerTakesNothingBack", "Deny", list(_NEVER), [_arn(bucket), f"{_arn(bucket)}/*"]),
    ]
    if bucket.endpoint_url is None:
        # Only AWS is known to have this condition.
        once = _statement("NobodyReplaces", "Deny", ["s3:PutObject"], _below(bucket, ("v1",)))
        condition = {"Null": {"s3:if-none-match": "true"}}
        statements.append({**once, "Principal": "*", "Condition": condition})
    return {"Version": "2012-10-17", "Statement": statements}


def lifecycle(bucket: Bucket) -> _Statement:
    """For `put-bucket-lifecycle-configuration`. Audit and actions stay: a chain needs its beginning."""
    rules = [_rule(bucket, folder, _DAYS) for folder in _EXPIRE]
    return {"Rules": [*rules, _rule(bucket, DOCTOR, 1)]}


def _statement(name: str, effect: str, actions: list[str], resources: list[str]) -> _Statement:
    return {
        "Sid": name,
        "Effect": effect,
        "Principal": {"AWS": SCANNER},
        "Action": actions,
        "Resource": resources,
    }


def _rule(bucket: Bucket, folder: str, days: int) -> _Statement:
    return {
        "ID": folder.replace("/", "-"),
        "Status": "Enabled",
        "Filter": {"Prefix": f"{bucket.prefix}{folder}/"},
        "Expiration": {"Days": days},
        "NoncurrentVersionExpiration": {"NoncurrentDays": 1},
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1},
    }


def _below(bucket: Bucket, folders: tuple[str, ...]) -> list[str]:
    return [f"{_arn(bucket)}/{bucket.prefix}{folder}/*" for folder in folders]


def _arn(bucket: Bucket) -> str:
    return f"arn:aws:s3:::{bucket.name}"
