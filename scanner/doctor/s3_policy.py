"""What to put in force at the bucket: who may do what there, and what goes by itself."""

from __future__ import annotations

from typing import Any

from scanner.quarantine.layout import ACTIONS, AUDIT, DELIVERIES, DETECTIONS, MARKERS, NONCES, OBJECTS, ROOT
from scanner.stores.s3 import Bucket

# To be replaced by your own: the scanner, analysts, and who may delete.
SCANNER = "arn:aws:iam::111122223333:user/media-scanner"
ANALYST = "arn:aws:iam::111122223333:user/analyst"
MAINTENANCE = "arn:aws:iam::111122223333:user/maintenance"
DOCTOR = "doctor"
_PUTS = (OBJECTS, DETECTIONS, DELIVERIES, AUDIT, NONCES, DOCTOR)
_GETS = (ACTIONS, AUDIT, NONCES, DOCTOR)
_NEVER_GETS = (OBJECTS, DETECTIONS, DELIVERIES, MARKERS)
_NEVER = (
    "s3:DeleteObject",
    "s3:DeleteObjectVersion",
    "s3:BypassGovernanceRetention",
    "s3:PutObjectLegalHold",
    "s3:PutBucketPolicy",
    "s3:PutLifecycleConfiguration",
)
_PEOPLE = (ANALYST, MAINTENANCE)
_PEOPLE_PUT = (ACTIONS, AUDIT, MARKERS)
_PURGED = (OBJECTS, DETECTIONS, DELIVERIES, MARKERS)
_Statement = dict[str, Any]


def bucket_policy(bucket: Bucket) -> _Statement:
    """For `put-bucket-policy`: a scanner whose key is stolen reads no sample, and takes nothing back.

    People read, sign and hold; maintenance deletes. At radosgw not even a bucket's owner may read what others
    put, unless it is said.
    """
    puts = ["s3:PutObject"] + (["s3:PutObjectRetention"] if bucket.retention is not None else [])
    looks = ["s3:ListBucket", "s3:GetBucketObjectLockConfiguration"]
    everything = [_arn(bucket), f"{_arn(bucket)}/*"]
    holds, deletes = ["s3:PutObjectLegalHold"], ["s3:DeleteObject"]
    statements = [
        _statement("ScannerPuts", "Allow", puts, _below(bucket, _PUTS), SCANNER),
        _statement("ScannerReads", "Allow", ["s3:GetObject"], _below(bucket, _GETS), SCANNER),
        _statement("ScannerLists", "Allow", looks, [_arn(bucket)], SCANNER),
        _statement("ScannerReadsNoSamples", "Deny", ["s3:GetObject"], _below(bucket, _NEVER_GETS), SCANNER),
        _statement("ScannerTakesNothingBack", "Deny", list(_NEVER), everything, SCANNER),
        _statement("PeopleList", "Allow", looks, [_arn(bucket)], *_PEOPLE),
        _statement("PeopleRead", "Allow", ["s3:GetObject"], _below(bucket, (ROOT,)), *_PEOPLE),
        _statement("PeopleSign", "Allow", puts, _below(bucket, _PEOPLE_PUT), *_PEOPLE),
        _statement("PeopleHold", "Allow", holds, _below(bucket, (OBJECTS,)), *_PEOPLE),
        _statement("MaintenancePurges", "Allow", deletes, _below(bucket, _PURGED), MAINTENANCE),
    ]
    if bucket.endpoint_url is None:
        # Only AWS is known to have this condition.
        once = _statement("NobodyReplaces", "Deny", ["s3:PutObject"], _below(bucket, (ROOT,)))
        condition = {"Null": {"s3:if-none-match": "true"}}
        statements.append({**once, "Principal": "*", "Condition": condition})
    return {"Version": "2012-10-17", "Statement": statements}


def lifecycle(bucket: Bucket) -> _Statement:
    """For `put-bucket-lifecycle-configuration`: what `purge` and `delete` hid goes for good a day later.

    Nothing goes by its age: no rule knows what is held, and even a legal hold lets a rule hide it. Of audit
    and actions nothing goes at all: an older version of one shows that somebody replaced it.
    """
    hidden: _Statement = {"ExpiredObjectDeleteMarker": True}
    rules = [_rule(bucket, folder, hidden) for folder in _PURGED]
    return {"Rules": [*rules, _rule(bucket, DOCTOR, {"Days": 1})]}


def _statement(
    name: str, effect: str, actions: list[str], resources: list[str], *principals: str
) -> _Statement:
    return {
        "Sid": name,
        "Effect": effect,
        "Principal": {"AWS": list(principals)},
        "Action": actions,
        "Resource": resources,
    }


def _rule(bucket: Bucket, folder: str, expiration: _Statement) -> _Statement:
    return {
        "ID": folder.replace("/", "-"),
        "Status": "Enabled",
        "Filter": {"Prefix": f"{bucket.prefix}{folder}/"},
        "Expiration": expiration,
        "NoncurrentVersionExpiration": {"NoncurrentDays": 1},
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1},
    }


def _below(bucket: Bucket, folders: tuple[str, ...]) -> list[str]:
    return [f"{_arn(bucket)}/{bucket.prefix}{folder}/*" for folder in folders]


def _arn(bucket: Bucket) -> str:
    return f"arn:aws:s3:::{bucket.name}"
