"""What the catalogue of data sets says that `eval/run.py` reads, and what `eval/run.py` reads, are the same."""

from echocare_hf.data.catalogue import read_catalogue
from tasks import TASKS, ULTRABENCH


def test_each_task_stands_at_its_data_set_and_nowhere_else():
    claimed = {
        (reader.partition(":")[2], entry.key)
        for entry in read_catalogue()
        for reader in entry.readers
        if reader.startswith("eval:")
    }
    assert claimed == {(key, task.data_set) for key, task in {**TASKS, **ULTRABENCH}.items() if task.data_set}
