"""Copies tables of one Postgres to another with dlt: dlt_copy.py SOURCE TARGET FOLDER TABLE…"""
import sys

import dlt
from dlt.destinations import postgres
from dlt.sources.sql_database import sql_table

source, target, folder, *tables = sys.argv[1:]
resources = [
    sql_table(
        credentials=source.replace("postgresql://", "postgresql+psycopg2://"),
        schema="public",
        table=table,
        backend="pyarrow",
        chunk_size=50_000,
        reflection_level="full_with_precision",
    )
    for table in tables
]
pipeline = dlt.pipeline("bench", destination=postgres(target), dataset_name="raw", pipelines_dir=folder)
pipeline.run(resources, write_disposition="replace").raise_on_failed_jobs()
