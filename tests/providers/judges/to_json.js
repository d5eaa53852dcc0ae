// The same document as JSON, for files that the judge's own YAML reader stumbles over. Arguments: folder of modules, from, to.
const fs = require("fs");
const [modules, from, to] = process.argv.slice(2);
const yaml = require(`${modules}/yaml`);
fs.writeFileSync(to, JSON.stringify(yaml.parse(fs.readFileSync(from, "utf8"))));
