"""What every VerdictCache keeps to; a test class of its own inherits this, with a fixture `cache`."""

from __future__ import annotations

import asyncio

from scanner.ports import VerdictCache
from scanner.verdict import Alias, ContentId, Detection, Hashes, Outcome, Reason, Report, Verdict, VerdictKey

KEY = VerdictKey(b"k" * 32)
ALIAS = Alias(b"a" * 32)
CLEAN = Verdict((Report("clamav", Outcome.CLEAN, "1.4.6/27000"), Report("mime", Outcome.CLEAN, "5.44")), 1.5)
INFECTED = Verdict(
    (Report("clamav", Outcome.INFECTED, "1.4.6/27000", Reason.MALWARE, (Detection("Win.Trojan.Agent-1"),)),),
    judged_at=2.5,
    mime_type="application/x-dosexec",
    hashes=Hashes("ab" * 32, "cd" * 20, "ef" * 16),
)


class VerdictCacheContract:
    """Inherit and be called Test...; every test gets a fresh `cache`."""

    async def test_unknown_key_has_no_verdict(self, cache: VerdictCache) -> None:
        assert await cache.verdict(KEY) is None

    async def test_remembered_verdict_comes_back_whole(self, cache: VerdictCache) -> None:
        for key, verdict in ((KEY, CLEAN), (VerdictKey(b"i" * 32), INFECTED)):
            await cache.remember(key, verdict, 60)
            assert await cache.verdict(key) == verdict

    async def test_newer_verdict_replaces_the_older(self, cache: VerdictCache) -> None:
        await cache.remember(KEY, CLEAN, 60)
        await cache.remember(KEY, INFECTED, 60)
        assert await cache.verdict(KEY) == INFECTED

    async def test_verdict_ends_with_its_lifetime(self, cache: VerdictCache) -> None:
        await cache.remember(KEY, CLEAN, 0.02)
        await asyncio.sleep(0.03)
        assert await cache.verdict(KEY) is None

    async def test_newer_lifetime_counts(self, cache: VerdictCache) -> None:
        await cache.remember(KEY, CLEAN, 0.02)
        await cache.remember(KEY, CLEAN, 60)
        await asyncio.sleep(0.03)
        assert await cache.verdict(KEY) == CLEAN

    async def test_alias_leads_to_its_content_and_to_nothing_else(self, cache: VerdictCache) -> None:
        assert await cache.content(ALIAS) is None
        await cache.link(ALIAS, ContentId(b"c" * 32))
        assert await cache.content(ALIAS) == b"c" * 32
        assert await cache.verdict(VerdictKey(ALIAS)) is None

    async def test_entries_counts_verdicts_and_aliases(self, cache: VerdictCache) -> None:
        assert cache.entries() == 0
        await cache.remember(KEY, CLEAN, 60)
        await cache.remember(KEY, INFECTED, 60)
        await cache.link(ALIAS, ContentId(b"c" * 32))
        assert cache.entries() == 2
