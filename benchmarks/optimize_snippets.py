"""Short programs for guesslang, by the label it gives; AAA, BBB and CCC stand for names that are filled in."""

from __future__ import annotations

NAMES = (
    ("total", "items", "Order"),
    ("distance", "points", "Shape"),
    ("result", "lines", "Parser"),
    ("score", "players", "Match"),
)

SNIPPETS: dict[str, tuple[str, ...]] = {
    "py": (
        "import os\nfrom pathlib import Path\n\n\ndef AAA(BBB):\n    AAA = 0\n    for item in BBB:\n"
        "        if item is None:\n            continue\n        AAA += len(item)\n    return AAA\n\n\n"
        'if __name__ == "__main__":\n    print(AAA(os.listdir(".")))\n',
        "class CCC:\n    def __init__(self, BBB=None):\n        self.BBB = BBB or []\n\n    @property\n"
        "    def AAA(self):\n        return sum(x for x in self.BBB)\n\n    def __repr__(self):\n"
        '        return f"CCC({self.BBB!r})"\n',
    ),
    "c": (
        "#include <stdio.h>\n#include <stdlib.h>\n\nint AAA(const int *BBB, size_t n)\n{\n    int sum = 0;\n"
        "    for (size_t i = 0; i < n; i++)\n        sum += BBB[i];\n    return sum;\n}\n\nint main(void)\n{\n"
        '    int *BBB = malloc(10 * sizeof(int));\n    printf("%d\\n", AAA(BBB, 10));\n    return 0;\n}\n',
        "#include <string.h>\n\ntypedef struct CCC {\n    char name[32];\n    struct CCC *next;\n} CCC;\n\n"
        "static CCC *find(CCC *BBB, const char *name)\n{\n    while (BBB != NULL) {\n"
        "        if (strcmp(BBB->name, name) == 0)\n            return BBB;\n        BBB = BBB->next;\n    }\n"
        "    return NULL;\n}\n",
    ),
    "cpp": (
        "#include <iostream>\n#include <vector>\n#include <algorithm>\n\ntemplate <typename T>\n"
        "T AAA(const std::vector<T>& BBB) {\n    T sum{};\n    for (auto& x : BBB) sum += x;\n    return sum;\n}\n\n"
        "int main() {\n    std::vector<int> BBB{1, 2, 3};\n    std::sort(BBB.begin(), BBB.end());\n"
        "    std::cout << AAA(BBB);\n    return 0;\n}\n",
        "#include <memory>\n#include <string>\n\nnamespace app {\n\nclass CCC {\npublic:\n"
        "    explicit CCC(std::string name) : name_(std::move(name)) {}\n    virtual ~CCC() = default;\n"
        "    virtual double AAA() const = 0;\n\nprivate:\n    std::string name_;\n};\n\n}  // namespace app\n",
    ),
    "java": (
        "package com.example;\n\nimport java.util.ArrayList;\nimport java.util.List;\n\npublic class CCC {\n"
        "    private final List<Integer> BBB = new ArrayList<>();\n\n    public int AAA() {\n        int sum = 0;\n"
        "        for (Integer item : BBB) {\n            sum += item;\n        }\n        return sum;\n    }\n\n"
        "    public static void main(String[] args) {\n        System.out.println(new CCC().AAA());\n    }\n}\n",
        "import java.util.Map;\n\npublic interface CCC<T extends Comparable<T>> {\n    T AAA(Map<String, T> BBB);\n\n"
        "    @Override\n    String toString();\n\n    default boolean isEmpty() {\n        return false;\n    }\n}\n",
    ),
    "js": (
        "const fs = require('fs');\n\nfunction AAA(BBB) {\n  return BBB.reduce((sum, x) => sum + x.value, 0);\n}\n\n"
        "module.exports = { AAA };\n\nfs.readFile('data.json', 'utf8', (err, data) => {\n  if (err) throw err;\n"
        "  console.log(AAA(JSON.parse(data)));\n});\n",
        "document.addEventListener('click', function (event) {\n  var AAA = document.getElementById('AAA');\n"
        "  if (AAA === null || AAA === undefined) {\n    return;\n  }\n  let BBB = AAA.querySelectorAll('li');\n"
        "  BBB.forEach(item => item.classList.toggle('active'));\n});\n",
    ),
    "go": (
        'package main\n\nimport (\n\t"fmt"\n\t"os"\n)\n\nfunc AAA(BBB []int) (int, error) {\n\tsum := 0\n'
        "\tfor _, x := range BBB {\n\t\tsum += x\n\t}\n\treturn sum, nil\n}\n\nfunc main() {\n"
        "\tsum, err := AAA([]int{1, 2})\n\tif err != nil {\n\t\tos.Exit(1)\n\t}\n\tfmt.Println(sum)\n}\n",
        'package CCC\n\nimport "sync"\n\ntype CCC struct {\n\tmu sync.Mutex\n\tBBB map[string]int\n}\n\n'
        "func (c *CCC) AAA(key string) int {\n\tc.mu.Lock()\n\tdefer c.mu.Unlock()\n\treturn c.BBB[key]\n}\n",
    ),
    "rs": (
        "use std::collections::HashMap;\n\nfn AAA(BBB: &[i32]) -> i32 {\n    let mut sum = 0;\n"
        "    for x in BBB.iter() {\n        sum += x;\n    }\n    sum\n}\n\nfn main() {\n"
        '    let BBB = vec![1, 2, 3];\n    println!("{}", AAA(&BBB));\n}\n',
        "#[derive(Debug, Clone)]\npub struct CCC {\n    BBB: Vec<String>,\n}\n\nimpl CCC {\n"
        "    pub fn new() -> Self {\n        CCC { BBB: Vec::new() }\n    }\n\n"
        "    pub fn AAA(&self) -> Option<&String> {\n        match self.BBB.len() {\n            0 => None,\n"
        "            _ => self.BBB.first(),\n        }\n    }\n}\n",
    ),
    "sh": (
        '#!/bin/bash\nset -euo pipefail\n\nAAA=0\nfor file in "$@"; do\n  if [ -f "$file" ]; then\n'
        '    AAA=$((AAA + $(wc -l < "$file")))\n  fi\ndone\necho "AAA: $AAA"\nexit 0\n',
        '#!/bin/sh\n\nBBB=/var/log/BBB\nmkdir -p $BBB\ncd $BBB || exit 1\ncase "$1" in\n  start) echo starting ;;\n'
        "  *) echo \"usage: $0 start\" ;;\nesac\ngrep -r AAA . | awk '{print $1}' | sort | uniq -c\n",
    ),
    "html": (
        '<!DOCTYPE html>\n<html>\n<head>\n  <title>CCC</title>\n  <link rel="stylesheet" href="style.css">\n</head>\n'
        '<body>\n  <div class="BBB">\n    <h1>CCC</h1>\n    <p>The AAA of <a href="/BBB">BBB</a>.</p>\n  </div>\n'
        "</body>\n</html>\n",
        '<table id="BBB">\n  <thead>\n    <tr><th>CCC</th><th>AAA</th></tr>\n  </thead>\n  <tbody>\n'
        '    <tr><td>1</td><td>2</td></tr>\n  </tbody>\n</table>\n<form action="/AAA" method="post">\n'
        '  <input type="text" name="AAA">\n  <button type="submit">Send</button>\n</form>\n',
    ),
    "css": (
        "body {\n  margin: 0;\n  font-family: sans-serif;\n}\n\n.BBB > li:hover {\n  color: #336699;\n"
        "  background-color: white;\n}\n\n#AAA {\n  display: flex;\n  padding: 4px 8px;\n}\n",
        "@media (max-width: 600px) {\n  .CCC {\n    width: 100%;\n    float: none;\n  }\n}\n\n"
        "a:visited {\n  text-decoration: underline;\n  border: 1px solid red;\n}\n",
    ),
    "sql": (
        "SELECT name, COUNT(*) AS AAA\nFROM BBB\nWHERE created_at > '2020-01-01'\nGROUP BY name\nHAVING COUNT(*) > 1\n"
        "ORDER BY AAA DESC;\n",
        "CREATE TABLE BBB (\n  id INTEGER PRIMARY KEY,\n  AAA DECIMAL(10, 2) NOT NULL,\n  name VARCHAR(255)\n);\n\n"
        "INSERT INTO BBB (id, AAA, name) VALUES (1, 2.50, 'CCC');\nUPDATE BBB SET AAA = 3 WHERE id = 1;\n",
    ),
    "rb": (
        "require 'json'\n\nclass CCC\n  attr_reader :BBB\n\n  def initialize(BBB)\n    @BBB = BBB\n  end\n\n"
        "  def AAA\n    @BBB.map { |item| item[:value] }.inject(0) { |a, b| a + b }\n  end\nend\n\n"
        "puts CCC.new([]).AAA unless ARGV.empty?\n",
        "module CCC\n  def self.AAA(BBB)\n    BBB.each do |item|\n      next if item.nil?\n"
        '      puts "#{item}: #{item.size}"\n    end\n  end\nend\n',
    ),
    "yaml": (
        "version: '3'\nservices:\n  CCC:\n    image: nginx:latest\n    ports:\n      - \"80:80\"\n    environment:\n"
        "      - AAA=1\n  BBB:\n    image: redis\n    restart: always\n",
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: BBB\n  labels:\n    app: CCC\nspec:\n  selector:\n"
        "    app: CCC\n  ports:\n    - port: 80\n      targetPort: 8080\n",
    ),
}
