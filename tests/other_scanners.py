"""The sample configurations of matrix-content-scanner 1.4 and of the Node scanner: their keys and values."""

from __future__ import annotations

PYTHON = """\
web: {host: 127.0.0.1, port: 8080}
scan:
  script: ./example.sh
  temp_directory: /tmp
  removal_command: srm
  allowed_mimetypes: [image/jpeg]
result_cache:
  exit_codes_to_ignore: [1, 2]
  max_size: 2048
  ttl: 1d
  max_file_size: 100MB
download:
  base_homeserver_url: "https://matrix.org"
  proxy: "http://10.0.0.1:3128"
  additional_headers: {user-agent: matrix-content-scanner}
  headers_to_forward: [Host]
crypto:
  request_secret_path: ./request_secret
"""

# With what stands there in comments.
NODE = """\
server: {port: 9000, host: "::1"}
scan:
  script: ./example.sh
  doNotCacheExitCodes: [1, 2]
  tempDirectory: /tmp
  baseUrl: https://matrix.org
  directDownload: false
altRemovalCmd: rm
proxy: "http://10.228.1.1:80"
requestHeader: {userAgent: matrix-content-scanner, xForward: x-forwarded-for}
middleware:
  encryptedBody: {pickleKey: some_random_secret, picklePath: av_pickled_decryption.key}
acceptedMimeType: [image/jpeg, image/jpg, image/png]
"""
