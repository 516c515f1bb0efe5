"""Who is running, from /proc."""

import pathlib

# Programs that rolegraft starts, and itself, by what they are to it.
OURS = {"rolegraft": "us", "mariadbd": "database", "mysqld": "database", "bwrap": "box", "unshare": "box", "soffice.bin": "office"}


def processes():
    """Every process that has not ended: id to name and parent."""
    found = {}
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except OSError:
                continue
            state, parent = stat[stat.rindex(")") + 2 :].split()[:2]
            if state != "Z":
                found[int(entry.name)] = (stat[stat.index("(") + 1 : stat.rindex(")")], int(parent))
    return found


def below(root, found):
    """The ids of a process and of all that it started, of those found."""
    tree, grew = {root}, True
    while grew:
        more = {pid for pid, (_, parent) in found.items() if parent in tree} - tree
        grew = bool(more)
        tree |= more
    return tree & found.keys()
