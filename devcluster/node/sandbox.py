"""Starts one container's process, or enters a running one: `python -I -S sandbox.py start|enter SPEC.json`.

This file imports nothing but the standard library and nothing of devcluster, because it starts once per container and
has to be quick. It becomes the container's process in four steps: it asks the kernel to be killed when the agent
dies, enters new user, mount, PID and UTS namespaces (no privilege is needed for them), builds the container's view of
the file system (the host read-only, /tmp private, volumes at their mount paths), and executes the command. The
process stays behind as the parent of the container's PID 1, to pass signals on and hand its exit code up.

With `"isolate": false` in the spec the namespaces are left out: the command runs on the host's file system.

What happened is written to the descriptor `report`, one JSON object per line: `{"pid": N}` is the container's process
as the host numbers it, `{"error": "…"}` why it could not be started. End of file means that the command is running.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import signal
import struct
import sys
from typing import Any, NoReturn

_libc = ctypes.CDLL(None, use_errno=True)

_CLONE_NEWNS, _CLONE_NEWUTS, _CLONE_NEWUSER, _CLONE_NEWPID = 0x20000, 0x4000000, 0x10000000, 0x20000000
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_BIND, _MS_REC, _MS_PRIVATE = 2, 4, 8, 4096, 16384, 1 << 18
_MNT_DETACH = 2
_PR_SET_PDEATHSIG = 1
_SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_SYS_MOUNT_SETATTR = 442
_AT_FDCWD, _AT_RECURSIVE, _MOUNT_ATTR_RDONLY = -100, 0x8000, 1
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty", "fuse")
_FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


def _checked(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def _mount(source: str, target: str, kind: str | None = None, flags: int = 0, data: str | None = None) -> None:
    arguments = [None if text is None else text.encode() for text in (source, target, kind)]
    _checked(_libc.mount(*arguments, flags, None if data is None else data.encode()), f"mount {source} on {target}")


def _set_read_only(path: str, read_only: bool, recursive: bool) -> None:
    bit = struct.pack("QQQQ", *((_MOUNT_ATTR_RDONLY, 0) if read_only else (0, _MOUNT_ATTR_RDONLY)), 0, 0)
    flags = _AT_RECURSIVE if recursive else 0
    result = _libc.syscall(_SYS_MOUNT_SETATTR, _AT_FDCWD, path.encode(), flags, bit, len(bit))
    _checked(result, f"make {path} {'read-only' if read_only else 'writable'}")


def die_with_parent(parent: int | None) -> None:
    """Be killed when the parent dies; leave at once if `parent` (its PID) is gone already."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if parent is not None and os.getppid() != parent:
        os._exit(137)


class _Root:
    """The container's file system, built at `path` from the host's and the volumes."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._made = {"/"}  # directories on our own tmpfs: what is missing in them can simply be created
        self._volumes: list[str] = []
        _mount("none", "/", None, _MS_REC | _MS_PRIVATE)
        _mount("tmpfs", path, "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=755")
        self._mirror("/", skip={"dev", "tmp"})
        self._devices()

    def _mirror(self, directory: str, skip: frozenset[str] | set[str] = frozenset()) -> None:
        for name in os.listdir(directory):
            if name not in skip:
                self._mirror_one(os.path.join(directory, name))

    def _mirror_one(self, host: str) -> None:
        here = self.path + host
        try:
            if os.path.islink(host):
                os.symlink(os.readlink(host), here)
            elif os.path.isdir(host):
                os.mkdir(here)
                _mount(host, here, None, _MS_BIND | _MS_REC)
            else:
                os.close(os.open(here, os.O_CREAT, 0o644))
                _mount(host, here, None, _MS_BIND)
        except OSError as problem:
            if problem.errno not in (errno.EACCES, errno.EPERM, errno.ENOENT, errno.EINVAL):
                raise

    def _devices(self) -> None:
        os.mkdir(self.path + "/dev")
        self._made.add("/dev")
        for name in _DEVICES:
            if os.path.exists("/dev/" + name):
                self._mirror_one("/dev/" + name)
        for name in os.listdir("/dev"):
            if name in ("pts", "shm", "ptmx") or name.startswith("nvidia"):
                self._mirror_one("/dev/" + name)
        for name, target in (("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")):
            os.symlink(f"/proc/self/fd{target}", f"{self.path}/dev/{name}")

    def _in_volume(self, path: str) -> bool:
        return any(path == volume or path.startswith(volume + "/") for volume in self._volumes)

    def _open(self, directory: str) -> None:
        """Make a directory of the host one in which mount points can be created, with the host's entries in it."""
        if directory in self._made or self._in_volume(directory):
            return
        _mount("tmpfs", self.path + directory, "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=755")
        self._made.add(directory)
        self._mirror(directory)

    def _directory(self, path: str) -> str:
        """Create `path` as the container sees it, following links; returns it without links."""
        pending, done, links = path.strip("/").split("/") if path.strip("/") else [], "/", 0
        while pending:
            name = pending.pop(0)
            if name in ("", "."):
                continue
            if name == "..":
                done = os.path.dirname(done)
                continue
            here = os.path.join(done, name)
            if os.path.islink(self.path + here):
                links += 1
                if links > 40:
                    raise OSError(errno.ELOOP, f"too many links in {path}")
                target = os.readlink(self.path + here)
                done = "/" if target.startswith("/") else done
                pending = target.strip("/").split("/") + pending
                continue
            if not os.path.isdir(self.path + here):
                self._open(done)
                os.mkdir(self.path + here, 0o755)
                self._made.add(here)
            done = here
        return done

    def bind(self, source: str, target: str) -> str:
        """Show the host's `source`, a file or a directory, at `target`; returns the target without links."""
        if os.path.isdir(source):
            at = self._directory(target)
        else:
            at = os.path.join(self._directory(os.path.dirname(target)), os.path.basename(target))
            if not os.path.lexists(self.path + at):
                self._open(os.path.dirname(at))
                os.close(os.open(self.path + at, os.O_CREAT, 0o644))
        _mount(source, self.path + at, None, _MS_BIND | _MS_REC)
        self._made = {made for made in self._made if made != at and not made.startswith(at + "/")}
        self._volumes.append(at)
        return at

    def keep(self, path: str) -> None:
        """Show `path` of the host although a volume may cover it."""
        if os.path.exists(path) and not os.path.exists(self.path + path):
            self.bind(path, path)

    def enter(self) -> None:
        """Make this the root of the process."""
        old = self.path + "/.host"
        os.mkdir(old)
        number = _SYS_PIVOT_ROOT.get(os.uname().machine)
        if number is None:
            os.chroot(self.path)
        else:
            _checked(_libc.syscall(number, self.path.encode(), old.encode()), "pivot_root")
        os.chdir("/")

    @staticmethod
    def leave_host() -> None:
        """Take the host's own root away."""
        if os.path.ismount("/.host"):
            _checked(_libc.umount2(b"/.host", _MNT_DETACH), "umount")
        os.rmdir("/.host")


def _build_root(spec: dict[str, Any]) -> None:
    root = _Root(spec["staging"])
    writable = []
    mounts = [*spec["mounts"]]
    if not any(os.path.normpath(mount["target"]) == "/tmp" for mount in mounts):  # noqa: S108 - the container's own
        mounts.append({"source": spec["scratch"], "target": "/tmp", "read_only": spec["read_only_root"]})  # noqa: S108
    for mount in sorted(mounts, key=lambda mount: os.path.normpath(mount["target"]).count("/")):
        at = root.bind(mount["source"], mount["target"])
        if not mount["read_only"]:
            writable.append(at)
    for path in spec["keep"]:
        root.keep(path)
    root.enter()
    root.leave_host()
    try:
        _set_read_only("/", True, recursive=True)
        for path in ("/dev/shm", "/dev/pts", *writable):  # noqa: S108
            if os.path.exists(path):
                _set_read_only(path, False, recursive=False)
    except OSError as problem:
        if problem.errno != errno.ENOSYS:  # Linux before 5.12: mounts stay writable
            raise


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def _enter_namespaces(spec: dict[str, Any]) -> None:
    outside_user, outside_group = os.geteuid(), os.getegid()
    _checked(_libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNS | _CLONE_NEWPID | _CLONE_NEWUTS), "unshare")
    _write("/proc/self/setgroups", "deny")
    _write("/proc/self/uid_map", f"{spec['user']} {outside_user} 1")
    _write("/proc/self/gid_map", f"{spec['group']} {outside_group} 1")
    name = spec["hostname"].encode()
    _checked(_libc.sethostname(name, len(name)), "sethostname")


def _execute(spec: dict[str, Any]) -> NoReturn:
    for number in range(1, signal.NSIG):  # a container starts with every signal at its default
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            try:
                signal.signal(number, signal.SIG_DFL)
            except (OSError, ValueError):
                continue
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    os.umask(0o022)
    try:
        os.chdir(spec["directory"])
    except OSError as problem:
        raise OSError(problem.errno, f'chdir to cwd ("{spec["directory"]}"): {problem.strerror}') from problem
    program, environment = spec["command"][0], spec["environment"]
    try:
        os.execvpe(program, spec["command"], environment)  # noqa: S606 - the container's own command
    except FileNotFoundError as problem:
        where = "no such file or directory" if "/" in program else "executable file not found in $PATH"
        raise OSError(problem.errno, f'exec: "{program}": {where}') from problem
    except OSError as problem:
        raise OSError(problem.errno, f'exec: "{program}": {(problem.strerror or "").lower()}') from problem


def _inner(spec: dict[str, Any], go: int) -> NoReturn:
    """PID 1 of the container."""
    die_with_parent(None)
    if os.read(go, 1) != b"g":
        os._exit(137)
    os.close(go)
    with contextlib.suppress(OSError):  # a host that hides parts of /proc forbids it; /proc/self is right all the same
        _mount("proc", "/proc", "proc", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
    _execute(spec)


def _outer(child: int) -> NoReturn:
    """Pass signals to the container's process, and its exit code up as a shell does (128 + signal)."""

    def forward(number: int, _frame: object) -> None:
        try:
            os.kill(child, number)
        except ProcessLookupError:
            return

    for number in _FORWARDED:
        signal.signal(number, forward)
    while True:
        try:
            _, status = os.waitpid(child, 0)
        except InterruptedError:
            continue
        code = os.waitstatus_to_exitcode(status)
        os._exit(code if code >= 0 else 128 - code)


def start(spec: dict[str, Any]) -> NoReturn:
    """Become the container that `spec` describes."""
    report = spec["report"]
    os.set_inheritable(report, False)

    def tell(**facts: object) -> None:
        os.write(report, json.dumps(facts).encode() + b"\n")

    try:
        die_with_parent(spec["parent"])
        if not spec["isolate"]:
            tell(pid=os.getpid())
            _execute(spec)
        _enter_namespaces(spec)
        die_with_parent(spec["parent"])  # a change of credentials may have cleared it
        _build_root(spec)
        wait, go = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(go)
            _inner(spec, wait)
    except OSError as problem:
        tell(error=problem.args[1] if len(problem.args) > 1 else str(problem))
        os._exit(128)
    os.close(wait)
    tell(pid=child)
    os.close(report)
    os.write(go, b"g")
    os.close(go)
    _outer(child)


def enter(spec: dict[str, Any]) -> NoReturn:
    """Run a command inside a running container: exec probes and lifecycle hooks."""
    die_with_parent(spec["parent"])
    try:
        if spec["isolate"]:
            handles = [os.open(f"/proc/{spec['pid']}/ns/{name}", os.O_RDONLY) for name in ("user", "mnt", "pid", "uts")]
            for handle in handles:
                _checked(_libc.setns(handle, 0), "setns")
            child = os.fork()
            if child != 0:
                die_with_parent(None)
                _outer(child)
            die_with_parent(None)
        _execute(spec)
    except OSError as problem:
        sys.stderr.write((problem.args[1] if len(problem.args) > 1 else str(problem)) + "\n")
        sys.stderr.flush()
        os._exit(126 if problem.errno == errno.EACCES else 127)


def main() -> None:
    """Read the mode and the specification from the command line."""
    mode, path = sys.argv[1:]
    with open(path) as file:
        spec = json.load(file)
    (start if mode == "start" else enter)(spec)


if __name__ == "__main__":
    main()
