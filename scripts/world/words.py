"""The vocabulary of the small world: short common words, so that nearly each is one token."""

from __future__ import annotations


def _listed(text: str) -> list[str]:
    """Words kept in one line of text: lists of quoted words are hard to read."""
    return text.split()


NAMES = _listed(
    "Ann Tom Sam Eva Ben Lily Max Rosa Jack Mia Paul Nina Fred Ruth Hugo Clara Otto Jane Karl Emma "
    "Leo Ida Nick Vera Carl Anna Peter Lucy Simon Alice Frank Helen David Sara Mark Julia Oscar Maria "
    "Henry Laura"
)
STORY_NAMES = _listed("Bill Kate Dan Amy Joe Sue Tim Meg Rob Jill Ray Pam Ned Liz Gus Dora Ian Fay Ken Joan")
STRANGE_NAMES = _listed(
    "Zorin Velka Brim Tuska Quill Dorvo Yanta Fesk Milko Orra Plim Wexa Grott Nuvo Sella Krand "
    "Ibbo Taven Jurda Hobb Lunka Rezo Vimm Dask Pello Zaffa Korri Umber Nelka Bosk"
)
TOWNS = _listed(
    "Oakton Redhill Milbury Stonely Farwick Lanford Westham Norby Elmsea Kirkdale Ashport Brookby "
    "Hillgate Dunmore Wellow Silton"
)
RIVERS = _listed("Tarn Wend Isk Lorn Mell Carr Dove Esk Gade Hale Nidd Otter Pell Rill Swale Yare")
SIGHTS = _listed(
    "bridge tower market castle church garden lake museum theatre clock library school harbour mill wall hill"
)
JOBS = _listed(
    "baker doctor teacher farmer painter driver singer cook nurse builder judge writer sailor guard"
)
ANIMALS = _listed("dog cat horse bird rabbit goat duck pig mouse cow sheep hen frog bear")
PETS = ANIMALS[:10]
FOODS = _listed("bread soup rice cake cheese meat honey corn pie pasta salad jam milk butter")
COLOURS = _listed("red blue green yellow black white brown pink")
OBJECTS = _listed(
    "cup hat ball book bag box coat lamp chair bell ring key pen plate shoe spoon drum kite doll mirror "
    "clock rope basket bottle blanket candle brush ticket map stone"
)
TOOLS = _listed("hammer saw drill rake axe knife shovel needle ladder broom")
PLACES = _listed("kitchen garden park school shop barn library station market hall")
CLASSES = {"an animal": ANIMALS, "a food": FOODS, "a tool": TOOLS, "a place": PLACES}
VERBS = _listed("has found lost bought made sold wants needs")
BASE_VERBS = dict(zip(VERBS, _listed("have find lose buy make sell want need"), strict=True))
NUMBERS = _listed("one two three four five six seven eight nine ten")
DAYS = _listed("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
MONTHS = _listed("January February March April May June July August September October November December")
GOOD = _listed("good great lovely nice sweet fresh clean bright happy fine warm perfect")
BAD = _listed("bad awful terrible sad dirty broken slow ugly cold sour boring poor")
LIKED = ["I loved it", "I liked it a lot", "we will come again", "it made me smile", "we had fun"]
HATED = ["I hated it", "I did not like it", "we will never come again", "it made me cry", "we went home"]
REVIEWED = _listed(
    "soup cake bread shop hotel film book song show park room lamp coat meal game trip school market "
    "pie train"
)
# No number words: a list of three in a row could be an item of `sort`.
COPY_WORDS = sorted({*ANIMALS, *FOODS, *COLOURS, *OBJECTS, *TOOLS, *PLACES})
