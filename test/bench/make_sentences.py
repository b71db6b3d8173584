#!/usr/bin/env python3
"""Takes sentences.txt from PostgreSQL's documentation: make_sentences.py FOLDER_OF_HTML > sentences.txt

The folder is that of Debian's package postgresql-doc-15. Only whole paragraphs of plain prose are taken, from the
chapters below, in their order, one sentence a line and an empty line after each paragraph. The documentation is
under the PostgreSQL Licence, like this project.
"""
import html
import os
import re
import sys

PAGES = """preface intro-whatis history bug-reporting tutorial-start tutorial-arch tutorial-concepts tutorial-join
tutorial-agg tutorial-views tutorial-fk tutorial-transactions tutorial-window tutorial-inheritance sql-syntax-lexical
ddl-basics ddl-constraints ddl-priv ddl-rowsecurity ddl-schemas ddl-partitioning dml-insert dml-returning
queries-table-expressions queries-with datatype-character datatype-datetime datatype-json typeconv-overview
indexes-intro indexes-multicolumn indexes-examine mvcc-intro transaction-iso explicit-locking mvcc-caveats
using-explain planner-stats populate how-parallel-query-works parallel-safety creating-cluster kernel-resources
encryption-options ssl-tcp auth-methods user-manag role-membership manage-ag-overview locale collation routine-vacuuming
logfile-maintenance backup-dump backup-file continuous-archiving different-replication-solutions warm-standby
hot-standby monitoring-ps disk-usage wal-intro wal-configuration logical-replication jit-reason regress-run
extend-type-system xfunc-sql rules-views plpgsql-overview bgworker overview planner-optimizer geqo-intro storage-toast
error-style-guide""".split()
SENTENCES = 620
STRANGE = re.compile(r"[^A-Za-z0-9 ,.;:'\"()\-?!/%]|\.\.\.|--|_")


def paragraphs(page):
    text = re.sub(r"(?s)<(pre|table|h\d)\b.*?</\1>", " ", page)
    for part in re.findall(r"(?s)<p>(.*?)</p>", text):
        part = html.unescape(re.sub(r"<[^>]+>", "", part))
        part = part.replace("\u201c", '"').replace("\u201d", '"').replace("\u2019", "'").replace("\u2014", ", ")
        yield re.sub(r"\s+", " ", part).strip()


def sentences(paragraph):
    return re.split(r"(?<=[.?!]) (?=[A-Z])", re.sub(r"\b(e\.g|i\.e|etc)\. ", r"\1 ", paragraph))


def good(sentence):
    words = sentence.split()
    return 7 <= len(words) <= 40 and sentence[0].isupper() and sentence[-1] in ".?!" and not STRANGE.search(sentence)


def main():
    count, budget = 0, {}
    for name in PAGES:
        path = os.path.join(sys.argv[1], name + ".html")
        with open(path, encoding="utf-8") as file:
            page = file.read()
        for paragraph in paragraphs(page):
            parts = sentences(paragraph)
            if len(parts) >= 2 and all(map(good, parts)) and budget.get(name, 0) < 12 and count < SENTENCES:
                print("\n".join(parts), end="\n\n")
                budget[name] = budget.get(name, 0) + len(parts)
                count += len(parts)
    print(f"{count} sentences", file=sys.stderr)


if __name__ == "__main__":
    main()
