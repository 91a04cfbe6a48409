"""Captions with Spark: every partition goes through one `xc2-edge caption --jsonl-in -`.

    spark-submit --master 'local[2,4]' spark.py xc2-edge model.gguf pictures captions

A worker that dies takes only its partition with it, which Spark gives to another one.
"""

import json
import os
import shlex
import shutil
import sys
from pathlib import Path

from pyspark.sql import SparkSession

PICTURES_PER_PARTITION = 25  # what is done again if a worker dies


def main(program: str, model: str, pictures: str, output: str) -> None:
    spark = SparkSession.builder.appName("captions").getOrCreate()
    paths = sorted(str(path.resolve()) for path in Path(pictures).rglob("*.png"))
    records = [json.dumps({"path": path}) for path in paths]
    n_partitions = -(-len(records) // PICTURES_PER_PARTITION)

    command = [shutil.which(program), "caption", "-m", model, "--jsonl-in", "-", "--quiet", "-t", "1"]
    captioned = spark.sparkContext.parallelize(records, n_partitions).pipe(
        shlex.join(command),
        env=dict(os.environ),  # without it the program has no PATH and no HOME
        checkCode=True,  # without it a program that was killed is taken for one that is done
    )
    captioned.saveAsTextFile(output)
    spark.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
