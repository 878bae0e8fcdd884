"""Lesions planted in good scans before the degradation, and what restoration makes of them."""

from restore_rwkv.evaluation.challenge.files import ChallengeFiles
from restore_rwkv.evaluation.challenge.lesions import Lesion, plant
from restore_rwkv.evaluation.challenge.methods import Method
from restore_rwkv.evaluation.challenge.pairs import CrossingPairs, crossing_pairs
from restore_rwkv.evaluation.challenge.request import ChallengeRequest
from restore_rwkv.evaluation.challenge.results import Challenge, Comparison, Rate, Summary
from restore_rwkv.evaluation.challenge.run import run_challenge
from restore_rwkv.evaluation.challenge.sites import find_sites

__all__ = [
    "Challenge",
    "ChallengeFiles",
    "ChallengeRequest",
    "Comparison",
    "CrossingPairs",
    "Lesion",
    "Method",
    "Rate",
    "Summary",
    "crossing_pairs",
    "find_sites",
    "plant",
    "run_challenge",
]
