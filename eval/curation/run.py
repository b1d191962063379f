"""`echocare curate` on real ultrasound with planted trouble: what each step finds, what it loses.

    python eval/curation/run.py plant --data DATA --pictures PICTURES --output PLANTED    # a few hundred images, 260 other pictures
    python eval/curation/run.py measure --planted PLANTED --output CORPUS                 # runs curate, prints the tables

DATA holds real ultrasound (real_images.py), PICTURES other pictures (pictures.py says which, and how they are fetched).
"""

import argparse
import time
from pathlib import Path

from measuring import measure
from planting import plant

from echocare_hf.curation import CurateOptions, curate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    planting = commands.add_parser("plant", help="write the folder with planted trouble")
    planting.add_argument("--data", type=Path, required=True, help="folder with real ultrasound and its index.csv")
    planting.add_argument("--pictures", type=Path, help="folder with wheels and unpacked packages")
    planting.add_argument("--images", type=int, default=50, help="images a data set, default 50")
    planting.add_argument("--output", type=Path, required=True, help="folder to write")
    measuring = commands.add_parser("measure", help="curate it and print the tables")
    measuring.add_argument("--planted", type=Path, required=True, help="folder that plant wrote")
    measuring.add_argument("--output", type=Path, required=True, help="folder of the corpus")
    given = parser.parse_args()
    try:
        if given.command == "plant":
            truths = plant(given.data, given.output, given.pictures, given.images)
            print(f"{given.output}: {len(truths)} files")
        else:
            start = time.perf_counter()
            result = curate([str(given.planted / "study")], given.output, CurateOptions(contact_images=5))
            report = result.report
            print(f"{report['found']} found, {report['kept']} kept, {time.perf_counter() - start:.0f} s\n")
            print(measure(given.planted, given.output))
    except (ValueError, OSError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
