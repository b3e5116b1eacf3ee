"""Every text that users see, in each language of `policy.language`.

The English of a verdict stands here, that of an error where it is raised; both are found under their English,
`{}` standing for what varies. A test holds that nothing a client can receive is missing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

from scanner.verdict import Decision, Outcome, Reason

Language = Literal["en", "fr"]

# What `scan*` says of media, and a download that is withheld: by reason, else by outcome.
_REASONS: Mapping[Reason, str] = {
    Reason.MALWARE: "Malware was found in this file",
    Reason.FORBIDDEN_TYPE: "Files of this type are not allowed here",
    Reason.DENIED: "This file was blocked by the security team",
    Reason.ENCRYPTED_ARCHIVE: "This archive is protected by a password and cannot be inspected",
    Reason.ENCRYPTED_DOCUMENT: "This document is protected by a password and cannot be inspected",
    Reason.OPAQUE: "This file may be encrypted, and its key was not given",
    Reason.LIMIT: "This file contains too much to be inspected",
    Reason.TIME_LIMIT: "This file takes too long to inspect",
    Reason.DAMAGED: "This file is damaged and cannot be inspected",
    Reason.AMBIGUOUS: "This archive is of a kind that cannot be inspected",
    Reason.READERS_DISAGREE: "Programs see different things in this archive",
    Reason.ENGINE_UNAVAILABLE: "The antivirus cannot be reached, try again later",
    Reason.ENGINE_ERROR: "The antivirus failed, try again later",
    Reason.ENGINE_TIMEOUT: "The antivirus did not answer in time, try again later",
    Reason.TEST_SIGNATURES: "The antivirus has no signatures but a test set, so nothing is called clean",
    Reason.CANARY: "The antivirus failed its own test, try again later",
}
_OUTCOMES: Mapping[Outcome, str] = {
    Outcome.CLEAN: "File is clean",
    Outcome.OPAQUE: "This file may be encrypted, and its key was not given",
    Outcome.UNSCANNABLE: "This file cannot be inspected",
    Outcome.FAILED: _REASONS[Reason.ENGINE_ERROR],
    Outcome.FORBIDDEN: _REASONS[Reason.FORBIDDEN_TYPE],
    Outcome.INFECTED: _REASONS[Reason.MALWARE],
}
CRASHED = "Internal error"
MALFORMED = "Malformed request"

FRENCH: Mapping[str, str] = {
    # verdicts
    "File is clean": "Ce fichier est sain",
    "This file cannot be inspected": "Ce fichier ne peut pas être analysé",
    "Malware was found in this file": "Un logiciel malveillant a été détecté dans ce fichier",
    "Files of this type are not allowed here": "Les fichiers de ce type ne sont pas autorisés ici",
    "This file was blocked by the security team": "Ce fichier a été bloqué par l'équipe de sécurité",
    "This archive is protected by a password and cannot be inspected": (
        "Cette archive est protégée par un mot de passe et ne peut pas être analysée"
    ),
    "This document is protected by a password and cannot be inspected": (
        "Ce document est protégé par un mot de passe et ne peut pas être analysé"
    ),
    "This file may be encrypted, and its key was not given": (
        "Ce fichier est peut-être chiffré, et sa clé n'a pas été fournie"
    ),
    "This file contains too much to be inspected": "Ce fichier contient trop d'éléments pour être analysé",
    "This file takes too long to inspect": "L'analyse de ce fichier prend trop de temps",
    "This file is damaged and cannot be inspected": "Ce fichier est endommagé et ne peut pas être analysé",
    "This archive is of a kind that cannot be inspected": "Cette archive est d'un type impossible à analyser",
    "Programs see different things in this archive": (
        "Le contenu de cette archive varie selon le logiciel qui l'ouvre"
    ),
    "The antivirus cannot be reached, try again later": "L'antivirus est injoignable, réessayez plus tard",
    "The antivirus failed, try again later": "L'antivirus a rencontré une erreur, réessayez plus tard",
    "The antivirus did not answer in time, try again later": (
        "L'antivirus n'a pas répondu à temps, réessayez plus tard"
    ),
    "The antivirus has no signatures but a test set, so nothing is called clean": (
        "L'antivirus ne dispose que de signatures de test, aucun fichier ne peut donc être déclaré sain"
    ),
    "The antivirus failed its own test, try again later": (
        "L'antivirus a échoué à son propre test, réessayez plus tard"
    ),
    # ours to blame
    CRASHED: "Erreur interne",
    MALFORMED: "Requête mal formée",
    "too much media under way, try again": "trop de fichiers en cours de traitement, réessayez",
    "too many scans under way, try again": "trop d'analyses en cours, réessayez",
    "too many files are open, try again": "trop de fichiers sont ouverts, réessayez",
    "too many large requests under way, try again": "trop de requêtes volumineuses en cours, réessayez",
    "not scanned in time, try again": "le fichier n'a pas pu être analysé à temps, réessayez",
    "shutting down, try again": "le service s'arrête, réessayez",
    # the homeserver's answers
    "the homeserver refuses the access token": "le serveur d'accueil refuse le jeton d'accès",
    "the homeserver has no such media for you": "ce fichier est introuvable sur le serveur d'accueil",
    "the homeserver finds the media too large": "le fichier est trop volumineux pour le serveur d'accueil",
    "the media is larger than {} bytes": "le fichier dépasse la taille maximale de {} octets",
    "the homeserver asks you to slow down": "trop de demandes au serveur d'accueil, réessayez plus tard",
    "the media has not been uploaded yet": "le fichier n'a pas encore été envoyé",
    "the homeserver did not answer in time": "le serveur d'accueil n'a pas répondu à temps",
    "the homeserver refused the request or failed": "le serveur d'accueil a refusé la demande ou a échoué",
    "the homeserver failed to hand out the media": "le serveur d'accueil n'a pas pu fournir le fichier",
    "the homeserver could not be reached or broke off": (
        "le serveur d'accueil est injoignable ou a interrompu la connexion"
    ),
    "the homeserver broke off or sent bad framing": (
        "le serveur d'accueil a interrompu la connexion ou envoyé une réponse mal formée"
    ),
    "the homeserver first announced a shorter body": (
        "le serveur d'accueil a envoyé plus de données qu'annoncé"
    ),
    "the homeserver redirects to a host that is not listed": (
        "le serveur d'accueil redirige vers un hôte non autorisé"
    ),
    "the homeserver sent two Content-Types": "le serveur d'accueil a envoyé deux en-têtes Content-Type",
    "the homeserver sent an encoded body": "le serveur d'accueil a envoyé un contenu encodé",
    "the homeserver sent media in a form that it must not have": (
        "le serveur d'accueil a envoyé le fichier sous une forme non valide"
    ),
    "the homeserver's answer is too long": "la réponse du serveur d'accueil est trop longue",
    "the homeserver's answer is no JSON object": "la réponse du serveur d'accueil n'est pas un objet JSON",
    # what the caller sent
    "not a valid server name": "nom de serveur non valide",
    "not a valid media ID": "identifiant de média non valide",
    "not a valid mxc:// URI": "URI mxc:// non valide",
    "not a valid file name": "nom de fichier non valide",
    "the path must end in a server name and a media ID": (
        "le chemin doit se terminer par un nom de serveur et un identifiant de média"
    ),
    "an access token is needed": "un jeton d'accès est nécessaire",
    "more than one Authorization header": "plusieurs en-têtes Authorization",
    "the Content-Type has characters that cannot be forwarded": (
        "l'en-tête Content-Type contient des caractères qui ne peuvent pas être transmis"
    ),
    "the access token has characters that no token can have": (
        "le jeton d'accès contient des caractères interdits dans un jeton"
    ),
    "the header {} has characters that cannot be forwarded": (
        "l'en-tête {} contient des caractères qui ne peuvent pas être transmis"
    ),
    "the request body is over 1 MiB": "le corps de la requête dépasse 1 Mio",
    "the request body did not arrive in time": "le corps de la requête n'est pas arrivé à temps",
    "the request body broke off or is badly framed": "le corps de la requête est interrompu ou mal délimité",
    "the request body came too slowly, try again": (
        "le corps de la requête est arrivé trop lentement, réessayez"
    ),
    "the request body must be multipart/form-data, with a boundary": (
        "le corps de la requête doit être de type multipart/form-data, avec un paramètre boundary"
    ),
    "the form is malformed, or breaks off": "le formulaire est mal formé ou interrompu",
    "the form must have one file, and at most its encryption info beside it": (
        "le formulaire doit contenir un seul fichier et tout au plus ses informations de chiffrement"
    ),
    "no part of the form may have an encoding": "aucune partie du formulaire ne doit être encodée",
    "the encryption info is over 1 MiB": "les informations de chiffrement dépassent 1 Mio",
    "the upload must not have a Content-Encoding": "l'envoi ne doit pas avoir d'en-tête Content-Encoding",
    "the request body has too many members": "le corps de la requête contient trop d'éléments",
    "the request body is not JSON": "le corps de la requête n'est pas du JSON",
    "the request body is not a JSON object": "le corps de la requête n'est pas un objet JSON",
    "sha256 must be 64 hexadecimal digits": "sha256 doit compter 64 chiffres hexadécimaux",
    "size must be a number of bytes": "size doit être un nombre d'octets",
    "purpose must be upload, download or file": "purpose doit être upload, download ou file",
    "mxc must be a valid mxc:// URI": "mxc doit être une URI mxc:// valide",
    "the bytes are not those of sha256 and size": "les octets ne sont pas ceux de sha256 et size",
    "the secret in server.inspect_secret_file is needed": (
        "le secret de server.inspect_secret_file est nécessaire"
    ),
    "this is not the secret in server.inspect_secret_file": (
        "ce n'est pas le secret de server.inspect_secret_file"
    ),
    "file.url must be a string": "file.url doit être une chaîne de caractères",
    "file.url must be a valid mxc:// URI": "file.url doit être une URI mxc:// valide",
    "file.key.key_ops must be strings, encrypt and decrypt among them": (
        "file.key.key_ops doit contenir des chaînes de caractères, dont encrypt et decrypt"
    ),
    "the media does not have the hash in file.hashes.sha256": (
        "l'empreinte du fichier n'est pas celle de file.hashes.sha256"
    ),
    "the counter in file.iv would wrap inside the media": (
        "le compteur de file.iv reviendrait à zéro au cours du fichier"
    ),
    "encrypted_body must be an object": "encrypted_body doit être un objet",
    "encrypted_body was not sealed for this scanner's public key": (
        "encrypted_body n'a pas été chiffré avec la clé publique de ce service"
    ),
    "encrypted_body.ephemeral or mac is no base64, or of the wrong length": (
        "encrypted_body.ephemeral ou mac n'est pas en base64 ou n'a pas la bonne longueur"
    ),
    "encrypted_body.ciphertext is no base64, or no whole number of blocks": (
        "encrypted_body.ciphertext n'est pas en base64 ou ne compte pas un nombre entier de blocs"
    ),
    "encrypted_body.{} is missing or no string": (
        "encrypted_body.{} est absent ou n'est pas une chaîne de caractères"
    ),
    "{} is missing or of the wrong type": "{} est absent ou d'un type incorrect",
    "{} must be {} bytes in base64": "{} doit compter {} octets en base64",
    "{} must be {}": "{} doit être {}",
}


def on_decision(decision: Decision, language: Language) -> str:
    """What is said of media that were judged."""
    text = _OUTCOMES[decision.outcome] if decision.reason is None else _REASONS[decision.reason]
    return in_language(text, language)


def in_language(text: str, language: Language) -> str:
    """An English text in `language`; as it is where it is in no table."""
    if language == "en":
        return text
    return FRENCH.get(text) or _filled_in(text) or text


def _pattern(template: str) -> re.Pattern[str]:
    return re.compile("(.+)".join(map(re.escape, template.split("{}"))), re.DOTALL)


# In the order of the table: one that fits more comes behind those that fit less.
_TEMPLATES = [(_pattern(english), french) for english, french in FRENCH.items() if "{}" in english]


def _filled_in(text: str) -> str | None:
    matches = ((pattern.fullmatch(text), french) for pattern, french in _TEMPLATES)
    return next((french.format(*match.groups()) for match, french in matches if match), None)
