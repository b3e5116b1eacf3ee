from __future__ import annotations

from pathlib import Path

import pytest

from scanner.errors import ConfigError
from scanner.tls import trusting
from tests.certificates import Authority

KEY = "homeserver.ca_file"


def test_the_listed_authorities_are_trusted_and_no_others(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    file = Authority(tmp_path).certificate
    assert trusting(file, KEY).cert_store_stats()["x509_ca"] == 1
    file.write_bytes(file.read_bytes() + Authority(tmp_path / "other").certificate.read_bytes())
    assert trusting(file, KEY).cert_store_stats()["x509_ca"] == 2


@pytest.mark.parametrize(
    "content", ["", "no PEM", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"]
)
def test_file_without_a_certificate_is_refused_in_one_line(tmp_path: Path, content: str) -> None:
    file = tmp_path / "ca.pem"
    file.write_text(content)
    with pytest.raises(ConfigError) as refused:
        trusting(file, KEY)
    assert refused.value.info == f"{KEY}: {file}: holds no certificate in PEM"


def test_file_that_cannot_be_read_is_refused_in_one_line(tmp_path: Path) -> None:
    for file, problem in ((tmp_path / "absent", "No such file or directory"), (tmp_path, "Is a directory")):
        with pytest.raises(ConfigError) as refused:
            trusting(file, KEY)
        assert refused.value.info == f"{KEY}: {file}: {problem}"
