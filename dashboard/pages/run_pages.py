"""The runs: all of them, and one with all that it did."""

from fastapi import APIRouter

router = APIRouter()
