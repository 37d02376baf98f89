"""Mix-downs from a file: sessions in YAML become mixes, stems and masters."""

from stemplug.session.render import Rendered, render
from stemplug.session.schema import json_schema

__all__ = ["Rendered", "json_schema", "render"]
