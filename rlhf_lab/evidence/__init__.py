"""What a run bought, measured without training anything: win rates by every judge, gold against proxy."""
