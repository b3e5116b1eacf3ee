"""The configuration of the quarantine: where it is, who may read it, whose word counts."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from scanner.config_values import Analysts, Duration, DurationOrNone, HttpUrl, PublicKey, Section, Size


class S3(Section):
    """Credentials come from the standard AWS environment and files."""

    endpoint_url: HttpUrl | None = Field(None, description="Null: AWS. Else the server's URL, path style.")
    bucket: str | None = Field(None, description="Must exist.")
    region: str | None = Field(None, description="Null: us-east-1.")
    prefix: str = Field("", description="Before all names, such as `matrix/`.")
    ca_file: Path | None = Field(None, description="Certificates (PEM) to trust. Null: the system's.")
    encryption: str | None = Field(
        None, description="`AES256` or `aws:kms`: asked of the server, and its echo is checked."
    )
    retention: Duration | None = Field(
        None,
        description="Object Lock (GOVERNANCE) on all that is put, for so long. Null: the bucket's default.",
    )


class Quarantine(Section):
    """Where what was detected is kept, sealed."""

    store: Literal["local", "s3", "off"] = Field(
        "local", description="`local` (in `state_dir`), `s3`, or `off`: nothing is kept."
    )
    keep: tuple[Literal["infected", "forbidden", "unscannable"], ...] = Field(
        ("infected",), min_length=1, description="Of which verdicts samples are kept."
    )
    encrypted: Literal["keep", "hash_only"] = Field(
        "keep", description="Whether plaintext of encrypted rooms is kept, or its hash and record alone."
    )
    public_key_file: Path | None = Field(
        None, description="The SOC's X25519 public key, 32 bytes in base64. Null: a pair made in `state_dir`."
    )
    public_key_files: tuple[Path, ...] = Field(
        (),
        description="Instead: two keys or more, of which samples need all. Nobody opens one alone.",
    )
    outbox_size: Size = Field(
        10 * 2**30, description="Samples that wait for the store. Beyond, hashes and records alone are kept."
    )
    deliveries_retention: DurationOrNone = Field(
        30 * 86400.0,
        description="How long to remember who was given what, for the day it is detected. 0: not at all.",
    )
    retention: Duration = Field(
        90 * 86400.0, description="What `quarantine purge` leaves: younger records, and samples seen since."
    )
    name: str | None = Field(
        None,
        min_length=1,
        max_length=200,
        description="Names the store in what analysts sign. Null: its URL and prefix; a local one has none.",
    )
    analysts: Analysts = Field(
        (),
        description="Whose signed actions count: a list of `{name, role, public_key}`; `role` is `analyst`, "
        "`approver` or `former`.",
    )
    four_eyes: bool = Field(
        False,  # noqa: FBT003 - pydantic takes the default by position
        description="An action counts only with the signature of an approver who is not its author.",
    )
    audit_public_keys: tuple[PublicKey, ...] = Field(
        (), description="Of the scanners that sign the audit chain, for `audit verify` elsewhere."
    )
    s3: S3 = Field(S3(), description="The bucket, where `store` is `s3`.")

    @field_validator("public_key_files")
    @classmethod
    def _are_several(cls, files: tuple[Path, ...], others: ValidationInfo) -> tuple[Path, ...]:
        if files and others.data.get("public_key_file") is not None:
            raise ValueError("must not be beside quarantine.public_key_file")
        if len(files) == 1:
            raise ValueError("must be two or more; one is quarantine.public_key_file")
        return files

    @field_validator("analysts")
    @classmethod
    def _sign_for_one_store(cls, analysts: Analysts, others: ValidationInfo) -> Analysts:
        """A directory is called the same on many machines, and what is signed must hold on one alone."""
        if analysts and others.data.get("store") == "local" and others.data.get("name") is None:
            raise ValueError("needs a quarantine.name of this machine's own where quarantine.store is local")
        return analysts

    @field_validator("four_eyes")
    @classmethod
    def _has_two_people(cls, four_eyes: bool, others: ValidationInfo) -> bool:  # noqa: FBT001 - pydantic's call
        active = [analyst.role for analyst in others.data.get("analysts", ()) if analyst.role != "former"]
        if four_eyes and (len(active) < 2 or "approver" not in active):
            raise ValueError("needs two people in quarantine.analysts, one of them an approver")
        return four_eyes

    @field_validator("s3")
    @classmethod
    def _names_a_bucket(cls, s3: S3, others: ValidationInfo) -> S3:
        if others.data.get("store") == "s3" and s3.bucket is None:
            raise ValueError("needs a bucket where quarantine.store is s3")
        return s3
