"""How far what was heard is from what was said."""

import json
import re
import sys

# What PocketSphinx may get wrong of this recording, in parts of the words. It gets some 2 in 100.
WRONG_MAX = 0.15


def words(text):
    return re.findall(r"[a-z0-9']+", text.lower())


def truth(path):
    with open(path) as file:
        return words(" ".join(turn["text"] for turn in json.load(file)))


def check(name, heard, said):
    """Ends the program if too many words are wrong."""
    row = list(range(len(said) + 1))
    for i, word in enumerate(heard, 1):
        row, last = [i] + [0] * len(said), row
        for j, other in enumerate(said, 1):
            row[j] = min(row[j - 1] + 1, last[j] + 1, last[j - 1] + (word != other))
    wrong = row[-1] / len(said)
    print(f"{name}: {len(heard)} words, {100 * wrong:.1f} % of {len(said)} wrong")
    if wrong > WRONG_MAX:
        print(f"{name}: heard {' '.join(heard)}", file=sys.stderr)
        sys.exit(f"{name}: more than {100 * WRONG_MAX:.0f} % of the words are wrong")
