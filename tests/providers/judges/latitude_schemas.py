"""Validates the bodies that were sent by the vendor's JSON Schemas. Arguments: schemas, log entries. Prints how many."""
import json
import sys

import jsonschema

schemas, entries = (json.load(open(path, encoding="utf-8")) for path in sys.argv[1:])
count = 0
for entry in entries:
    name = "CreateBgpSession" if entry["path"].endswith("/bgp_sessions") else "CreateElasticIP"
    jsonschema.Draft202012Validator(schemas[name]).validate(entry["body"])
    count += 1
print(count)
