"""Who else can change a file: its owner, its group, or everybody."""

from __future__ import annotations

import grp
import os
import pwd
import stat
from collections.abc import Collection


def other_writers(status: os.stat_result, owners: Collection[int]) -> str | None:
    """Who beside `owners` can change a file or directory; None if nobody can.

    Reads as the predicate of a sentence: `belongs to alice`, `can be written by group sar`. Root is
    not counted, and neither is a group of which the owner is the only member. An access control
    list shows in the bits of the group under POSIX; those of NFS version 4 are not seen.
    """
    if status.st_uid not in owners:
        return f"belongs to {user_name(status.st_uid)}"
    if stat.S_ISLNK(status.st_mode):
        return None
    if status.st_mode & stat.S_IWOTH:
        return "can be written by everybody"
    if status.st_mode & stat.S_IWGRP and not _is_private_group(status.st_gid, status.st_uid):
        return f"can be written by group {_group_name(status.st_gid)}"
    return None


def user_name(user_id: int) -> str:
    """Login name of a user; `user 1234` without an account here."""
    try:
        return pwd.getpwuid(user_id).pw_name
    except KeyError:
        return f"user {user_id}"


def _group_name(group_id: int) -> str:
    try:
        return grp.getgrgid(group_id).gr_name
    except KeyError:
        return str(group_id)


def _is_private_group(group_id: int, owner: int) -> bool:
    """Whether the group is the owner's own, of the same name, as `useradd` makes one for each."""
    try:
        user, group = pwd.getpwuid(owner), grp.getgrgid(group_id)
    except KeyError:
        return False
    alone = {*group.gr_mem} <= {user.pw_name}
    return user.pw_gid == group_id and user.pw_name == group.gr_name and alone
