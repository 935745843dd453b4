"""Multi30k: image captions in English and German."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from warmstart.corpus.data_files import DataFile, hash_table
from warmstart.corpus.named_set import NamedSet, datasets
from warmstart.corpus.reading import SourceFile
from warmstart.corpus.settings import CorpusSettings
from warmstart.corpus.source import Source, split_source

_ORIGIN = "https://raw.githubusercontent.com/multi30k/dataset/a3d2e0d26b56f3846f66a952536ffed4e401d05a/data"
_FOLDER = "multi30k_en_de"
_SPLITS = {"train": "train", "valid": "val", "test": "test2016"}


@datasets.register(
    "multi30k", title="Multi30K: Multilingual English-German Image Descriptions", arxiv="1605.00459"
)
class Multi30k(NamedSet):
    """Captions of 31,014 images, with the official splits (train, val, test2016).

    `en` and `de` are task 2: five captions per image in each language, written independently, one document
    each. `en-de` is task 1: English captions and their professional translations.
    """

    def corpora(self) -> list[str]:
        return ["de", "en"]

    def parallel(self) -> list[str]:
        return ["de-en", "en-de"]

    def open(self, member: str, settings: CorpusSettings) -> Source:
        files = {
            split: [_file(f"task2.{theirs}.{caption}.{member}").locate() for caption in range(1, 6)]
            for split, theirs in _SPLITS.items()
        }
        chosen = settings.model_copy(update={"unit": "line", "reader": "txt"})
        return split_source(f"multi30k/{member}", files, chosen, member)

    def pairs(self, member: str, split: str) -> tuple[list[SourceFile], Iterator[tuple[str, str]]]:
        from warmstart.corpus.pairs import read_parallel

        splits = self.chosen_splits(split, _SPLITS, f"multi30k/{member}")
        halves = [
            tuple(_file(f"task1.{_SPLITS[name]}.{language}").locate() for language in member.split("-"))
            for name in splits
        ]
        files = [file for half in halves for file in half]
        return files, chain.from_iterable(read_parallel(left.path, right.path) for left, right in halves)


def _file(name: str) -> DataFile:
    task, rest = name.split(".", 1)
    origin = rest.replace("test2016", "test_2016_flickr" if task == "task1" else "test_2016")
    return DataFile(_FOLDER, f"{name}.txt.gz", (f"{_ORIGIN}/{task}/raw/{origin}.gz",), _SHA256[name])


_SHA256 = hash_table("""
task1.train.en d79cfa999dd4c51d2cb42499b6796d5a882c3a8a961923c25a898c90f8bbd56f
task1.val.en 14f7d25ddd868909a9213e361768460edcacdd6ab9d1e77b92560dc10c10dc28
task1.test2016.en 611d361c6334bc7246101d48097c13cf5c4413c5befc793cc629934359d532d9
task1.train.de 726e39b2fa9eb9ffb6dc763fb35a179f80fae06ffc5d28b6ace5faa883de28a6
task1.val.de f0cba2f995189cf5770f29a8a9a537a3ad3f51657ad873405082ff6863a5e75a
task1.test2016.de 9204244e408ccb38d2a55cfcd344df15005fc42a07a6e55ca6c52b6ababb8cc8
task2.train.1.en a0e057f07a9733199c0d755d77f6d583dc6f40a3180734b1130a216e2fdf3a3b
task2.train.2.en d79dd70a9eafb2d1fe40151621278c4ae69b3c148c5052a53d7c7a41bf3ba023
task2.train.3.en 86e16fdcc699bcb6bca0f87c3cf1051f7de5ee3674dd588cedc5200194282749
task2.train.4.en 3771b84e010ad6197806d2a1188cb07c12149e3e0d178dd5966dee5763733686
task2.train.5.en 73988689307fe836994eae59735dc840c15da9775455fa76e6ed22606a042a91
task2.val.1.en 4ce8f8ffbef4a1c066e3f35a5ffc764666c26c318a733d9bdc6349577f1c6f9c
task2.val.2.en 4103944d652127e5af33ba2761d71cb6c0e1509c1a67d4387dc67ad768cfb752
task2.val.3.en 6ecd848713d98faa9c6db2e9e457a778335358e6e3a4743cf4e929a0516e399a
task2.val.4.en bfab4f0cbdac6233f206bbbfbd324dc02b258e291c3f410a69f9884171008788
task2.val.5.en 4b6a6541b7b58d545eff7feead4187aeb0439a7178a7bed6951121e0ecbaee66
task2.test2016.1.en bf64274c8e1f73ba57d47409f707a640b3874a06e7e83adfb5a6d4c055bc6b29
task2.test2016.2.en 36c12dac199e336e74ebe91c5240a1c6cefce7af2a3f3a2054d184947932bc3c
task2.test2016.3.en 2188662d22b01c5ecf7ae6a7c003b45fc83c510d34999c2340078e75088b0f1f
task2.test2016.4.en dcb6a0ad2ae40f54a1f9e9f20d3146c7f0a662feece2e78d2d511667bf229f08
task2.test2016.5.en 60e31317f0d960aed273d8ec527411935fb1ff3dee2c9cc9572259739ff193c0
task2.train.1.de 0002241b52aba5160c08d644ea0d64a9bf46a2dfffcf619c9e3cdaa55b357004
task2.train.2.de ac7c29258b90aec0b64d677c5bfc831fc402e6296d0aa9cc7a3433ddbff85c37
task2.train.3.de ec5e6508813814aa31311b34e26e24f903dd7701f8d0668313259b7f975d7aa0
task2.train.4.de bcee8ac6eb47d8a7dc8cff47d9a0fbd80b4363cfda22021bacd297f9604221a4
task2.train.5.de dccb0ca6ff25e0b1f0d385f59fb809184e0db89622d88371725e3ec46d43bfc0
task2.val.1.de a6b9ad98bdab8882d2ac40d1bc05db89341947162c07d2d0d27e80f01897ba05
task2.val.2.de dbbf0f8fa54fdb4a3c64d22a1c0773ade3f775c39e4513ab5ca6d683025086dc
task2.val.3.de 5eac83b577fe9bc781e60b609545123804e9dd29de4c2bd1b9e178ad8b29a1da
task2.val.4.de 1c3054cfd1e47f17d8a20fcec6615cfd26d7dc2c8c4ef4625cd9db9f4e4590ea
task2.val.5.de 185d6cb907313e6a6eef76f09c657e5748e08ee3c7a5b26200186e171e2c8344
task2.test2016.1.de cf83315ea2e76c517fb41553ff25c7128d071397928a6b66a5d81479aeea950b
task2.test2016.2.de 327af090d22ddf624fe638f34e815b249bdfa033e3e48f55474e21d6b28efaa8
task2.test2016.3.de b3236b4834c944cd42e6942da9041fee210cb2875574deefd41f130e5651a61b
task2.test2016.4.de 3843a960dc2c026d5d371c720cce830b6709d03c2f29e17b2923af11497da2c0
task2.test2016.5.de c861f68362c443b07c8f919a9bd8c8ecd7f5fccf2b13bf4d4bd8e7fe8783880e
""")
