"""The blocking socket as a script uses it: fresh processes, real sockets, threads and time.

Each script is several scenarios in a row, because starting a process takes long.  It has to end by
itself, in time, with exit code 0 and nothing on stderr unless its test says otherwise.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from .test_plugin import environment

#: Seconds after which a process is taken for hanging.
PATIENCE = 40.0

#: The module ``common`` of all scripts.
COMMON = """
import os, signal, sys, threading, time
from py2p_twisted import base, chord, errors

def new(k=3, **more):
    return chord.chord_socket('127.0.0.1', 0, k=k, **more)

def founder(**more):
    sock = new(**more)
    sock.join()
    return sock

def raised(kind, function, *arguments):
    "The error that a call raises; it must be of this kind, and come in good time."
    began = time.monotonic()
    try:
        result = function(*arguments)
    except kind as error:
        assert time.monotonic() - began < 10, (error, time.monotonic() - began)
        return error
    raise AssertionError(f'{result!r} where {kind} was expected')

def freeze_the_keeper():
    "Ask the test to do it, and wait until it is done."
    print('freeze', flush=True)
    sys.stdin.readline()

def eventually(holds):
    end = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < end, 'it does not come to pass'
        time.sleep(0.01)
"""

#: A node that others use: tells its port; at the next line its length, and leaves.
KEEPER = """
from common import *
sock = founder()
print(sock.out_addr[1], flush=True)
sys.stdin.readline()
print(len(sock), flush=True)
sock.unjoin(discard=True)
"""

#: As the documentation has it; the test replaces the ports.
EXAMPLE = """
from py2p_twisted import chord, base
a = chord.chord_socket('127.0.0.1', 4444, k=2); a.join()          # founds a ring
b = chord.chord_socket('127.0.0.1', 4445, k=2)
b.connect('127.0.0.1', 4444)                           # leeching: reads and writes, stores nothing
assert b.routing_table or b.awaiting_ids
b['test key'] = 'value'; assert a[b'test key'] == b'value'
b.join()                                                          # now it stores its share
"""

ATTRIBUTES = """
from common import *
a, b = new(k=2), new(k=2)
assert a.leeching and a.next is None and a.prev is None and 'connect()' in a.status, a.status
assert (a.k, a.limit, a.protocol) == (2, 4, chord.default_protocol)
assert 0 <= a.id_10 < 4 and a.id == base.to_base_58(a.id_10), (a.id, a.id_10)
assert a.out_addr[0] == '127.0.0.1' and a.out_addr[1] > 0, a.out_addr
assert a.routing_table == {} and a.awaiting_ids == []
b.connect(*a.out_addr)
assert [peer.address for peer in b.awaiting_ids] == [a.out_addr] and not b.routing_table
error = raised(errors.NotConnected, b.get, 'key')
assert 'join()' in str(error) and not error.outcome_unknown, error
a.join()
assert not a.leeching and a.status == 'Nominal' and 'joined' in repr(a), (a, a.status)
b.connect(*a.out_addr)
assert b.leeching and 'leeching' in repr(b) and not b.awaiting_ids
assert {id: peer.address for id, peer in b.routing_table.items()} == {a.id: a.out_addr}
assert len({a, b, a}) == 2 and a != b

b.join()
b.update({'': '', 'schl\u00fcssel': '\u00e4'}, a='1')
with new(k=2) as c:
    c.connect('localhost', a.out_addr[1])
    c.join()
    eventually(lambda: c.next and c.prev)
    assert len(c) == 3 and c['schl\u00fcssel'] == '\u00e4'.encode() and c[''] == b''
assert c.status == 'Closed' and 'closed' in repr(c) and c.routing_table == {}
c.close()
for call in (lambda: c['a'], c.join, c.clear, lambda: len(c), lambda: list(c)):
    assert 'closed' in str(raised(errors.NotConnected, call))
b.unjoin()
assert b.leeching and len(dict(b.items())) == 3
assert 'discard=True' in str(raised(errors.Unavailable, a.unjoin))
a.unjoin(discard=True)
a.close(); b.close()
"""

ERRORS = """
from common import *
a = founder(k=2)
for kind, make in [
    (ValueError, lambda: new(k='2')),
    (ValueError, lambda: new(k=0)),
    (TypeError, lambda: chord.chord_socket('127.0.0.1', '4444')),
    (ValueError, lambda: chord.chord_socket('127.0.0.1', 70000)),
    (TypeError, lambda: chord.chord_socket(None, 0)),
    (ValueError, lambda: new(timeout=0)),
    (ValueError, lambda: new(replicas=2)),
    (ValueError, lambda: new(replicas='3')),
    (ValueError, lambda: new(prot=base.protocol('x', 'rot13'))),
    (ValueError, a.recover),
    (TypeError, lambda: a.connect('127.0.0.1', 'http')),
    (TypeError, lambda: 1 in a),
    (KeyError, lambda: a['none']),
]:
    assert str(raised(kind, make))
assert a.recover(accept_data_loss=True).lost == 0

taken = raised(errors.CannotListen, chord.chord_socket, *a.out_addr)
assert isinstance(taken, OSError) and isinstance(taken, errors.ChordError) and taken.errno
assert str(taken) == f'cannot listen on 127.0.0.1:{a.out_addr[1]}: Address already in use', taken
foreign = raised(errors.CannotListen, chord.chord_socket, '192.0.2.1', 0)
assert 'cannot listen on 192.0.2.1:0: Cannot assign' in str(foreign), foreign
assert 'must be an address of this machine' in str(foreign), foreign

b = new(k=2)
refused = raised(errors.PeerUnreachable, b.connect, '127.0.0.1', 1)
assert isinstance(refused, ConnectionError) and '127.0.0.1:1' in str(refused), refused
raised(errors.NetworkMismatch, new(k=3).connect, *a.out_addr)
ring = founder(k=2, replicas=3)
other = raised(errors.RingConflict, new(k=2, replicas=5).connect, *ring.out_addr)
assert str(other) == (
    f'127.0.0.1:{ring.out_addr[1]} refused this node: it is in a ring that keeps 3 copies of every '
    'key, and replicas=5 was asked for here: leave replicas= out, or ask for 3'), other
for replicas in (None, 3):
    same = new(k=2, replicas=replicas)
    same.connect(*ring.out_addr)
    same['replicas'] = str(replicas)
    assert ring['replicas'] == str(replicas).encode()
    same.close()
del ring['replicas']  # so that no key is lost with it
import traceback
lines = traceback.format_exception(type(refused), refused, refused.__traceback__)
assert len(lines) < 10 and 'Traceback' not in ''.join(lines[1:]), lines
"""

STORAGE = """
from common import *
import socket
folder, port = sys.argv[1], int(sys.argv[2])

def open_it(**more):
    return chord.chord_socket('127.0.0.1', port, k=3, storage=folder, **more)

if sys.argv[3] == 'first':
    with open_it() as sock:
        assert sock.leeching
        sock.join()
        sock['a'] = '1'
    sock = open_it()
    assert not sock.leeching and sock['a'] == b'1', sock
    sock['b'] = '2'
    error = raised(errors.StorageInUse, lambda: new(storage=folder, k=3))
    assert error.pid == os.getpid(), error
    if sys.argv[4] == 'kill':
        os.kill(os.getpid(), signal.SIGKILL)
else:
    with socket.create_server(('127.0.0.1', port)):
        raised(errors.CannotListen, open_it)
        raised(errors.CannotListen, open_it)         # not StorageInUse: the first let go of it
    error = raised(errors.StorageMismatch, lambda: new(storage=folder, k=4))
    assert "k is '3' there and '4' here" in str(error), error
    with open_it() as sock:
        assert sock['a'] == b'1' and sock['b'] == b'2'
        sock.unjoin(discard=True)
    with open_it() as sock:
        assert sock.leeching
    blocked = os.path.join(folder, 'node.sqlite', 'below')
    raised(errors.StorageUnusable, lambda: new(storage=blocked))
"""

THREADS = """
from common import *
a = founder()
b = new(); b.connect(*a.out_addr); b.join()
problems = []

def work(number):
    sock = (a, b)[number % 2]
    try:
        for step in range(20):
            sock[f'{number} {step}'] = 'x'
            assert sock[f'{number} {step}'] == b'x'
            while True:
                old = sock.setdefault('counter', '0')
                if sock.compare_and_set('counter', old, str(int(old) + 1)):
                    break
        assert len(list(sock)) > 20
    except BaseException as error:
        problems.append(error)

threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert not problems, problems
assert int(a['counter']) == 8 * 20 and len(b) == 8 * 20 + 1, (a['counter'], len(b))

# An iteration that is given up half-way ends, and may be collected in any thread.
import gc
a.update({str(number): '' for number in range(2000)})
for sock in (a, b):
    for key in sock: break
    iterator = iter(sock.items())
    next(iterator)
    cycle = [iterator]
    cycle.append(cycle)
    del iterator, cycle
from twisted.internet import reactor
from twisted.internet.threads import blockingCallFromThread
blockingCallFromThread(reactor, gc.collect)

# The reactor's thread is the one that cannot wait.
def refused():
    calls = (lambda: a['key'], a.close, lambda: list(a), new, lambda: a.status)
    return [str(raised(errors.WouldBlockReactor, call)) for call in calls]
assert all('ChordService' in text for text in blockingCallFromThread(reactor, refused))
assert blockingCallFromThread(reactor, repr, a) == repr(a)
a.clear()
"""

#: Where the program itself runs the reactor, sockets are refused in every thread.
APPLICATION = """
from common import *
from twisted.internet import reactor
from twisted.internet.threads import deferToThread

def refused():
    said.append(str(raised(errors.WouldBlockReactor, new)))

def check():
    refused()
    return deferToThread(refused).addErrback(said.append).addBoth(lambda _: reactor.stop())

said = []
reactor.callWhenRunning(check)
reactor.run()
assert len(said) == 2 and all('already runs' in text for text in said), said
assert threading.active_count() == 1, threading.enumerate()
"""

FORK = """
from common import *
import traceback

def forked(work):
    pid = os.fork()
    if pid:
        return pid
    try:
        work()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)

def check(pid):
    assert os.waitpid(pid, 0)[1] == 0

def in_a_thread():
    assert 'spawn' in str(raised(errors.ChordError, new))

thread = threading.Thread(target=lambda: check(forked(in_a_thread)))
thread.start()
thread.join()

ready, go = os.pipe()

def before_the_first_socket():
    with new() as sock:
        sock.connect('127.0.0.1', int(os.read(ready, 100)))
        sock.join()
        sock['from'] = 'the child'

child = forked(before_the_first_socket)
a = founder()
os.write(go, str(a.out_addr[1]).encode())
check(child)
assert a['from'] == b'the child'

iterator = iter(a.items())
a.update({str(number): '' for number in range(2000)})
next(iterator)

def after_the_first_socket():
    for call in (lambda: a['from'], a.join, lambda: len(a), lambda: next(iter(a))):
        assert 'forked' in str(raised(errors.ChordError, call))
    assert 'spawn' in str(raised(errors.ChordError, new))
    iterator.close()
    a.close()

check(forked(after_the_first_socket))
assert a['from'] == b'the child' and a.status == 'Nominal'
a.unjoin(discard=True)
"""

#: Uses a node that freezes; it is given its port and its process.
SILENCE = """
from common import *
from twisted.internet.defer import Deferred
from py2p_twisted.chord.reactor import block
port, keeper = map(int, sys.argv[1:])
b, c = new(timeout=0.5), new(timeout=20)
b.connect('127.0.0.1', port)
c.connect('127.0.0.1', port)
b.update({str(number): 'v' for number in range(100)})
assert c['1'] == b'v'
freeze_the_keeper()

# The node that keeps the keys does not answer.
for call in (lambda: b['1'], lambda: b.update({'1': '2'})):
    error = raised((errors.OperationTimeout, errors.Unavailable), call)
    assert 'in 0.5 s' in str(error), error

# Ctrl-C ends the wait, and cancels the operation.
threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
raised(KeyboardInterrupt, c.get, '1')
assert not c._pending, c._pending

# The wait has a bound of its own, and what the user sees is our error.
never = raised(errors.OperationTimeout, lambda: block(Deferred, patience=0.1, pending=set()))
assert isinstance(never, TimeoutError) and 'within 0.1 s' in str(never), never

# Closing a socket ends the waits of other threads.
said = []
waiting = threading.Thread(target=lambda: said.append(raised(errors.NotConnected, c.get, '2')))
waiting.start()
eventually(lambda: c._pending)
c.close()
waiting.join()
assert type(said[0]).__name__ == 'NotConnected', said

os.kill(keeper, signal.SIGCONT)

def back():
    try:
        return b['1'] in (b'v', b'2')
    except (errors.OperationTimeout, errors.Unavailable, errors.NotConnected):
        return False

eventually(back)
"""

#: Functions that hear of changes.  The script ends while one of them is being called.
LISTENERS = """
from common import *
from py2p_twisted.events import Event
a = new()
heard = []

@a.on('add')                           # before there is a ring, as py2p's programs do it
def added(sock, event):
    assert sock is a and isinstance(event, Event)
    heard.append((event.kind, event.key, event.value, sock.get(event.key)))

a.join()
b = new()
b.connect(*a.out_addr)

def note(sock, event):
    "It uses the socket, and takes its time: the others wait for it."
    assert sock is b and not here, here
    here.append(threading.current_thread().name)
    time.sleep(0.01)
    sock['heard of'] = event.key
    heard.append((event.kind, event.value))
    here.pop()

here = []
assert b.on('change', note, prefix='key') is note
b.on('change', note, prefix='key')     # twice is once
b.on('delete', note, prefix='key')
b.once('add', note, key='key 1')
assert b.listeners('change') == [note] and b.listeners('add') == [note]
for value in '1234':
    a['key 1'] = value
del a['key 1']
a['key 1'] = '5'                       # nobody wants to hear it
eventually(lambda: heard.count(('delete', None)))
assert [one for one in heard if len(one) == 2] == [
    ('add', b'1'), ('change', b'2'), ('change', b'3'), ('change', b'4'), ('delete', None)], heard
eventually(lambda: {one[:3] for one in heard if len(one) == 4} == {
    ('add', b'key 1', b'1'), ('add', b'heard of', b'key 1'), ('add', b'key 1', b'5')})
assert b.listeners('add') == []

# What a listener raises is told, and the others are called all the same.
def bad(sock, event):
    raise ZeroDivisionError('of a listener')

after = []
b.on('change', bad, key='key 2')
b.on('change', lambda sock, event: after.append(event.value), key='key 2')
b.remove_listener('change', note, prefix='key')
assert 'does not listen' in str(raised(KeyError, b.remove_listener, 'change', note))
a.update({'key 2': 'x'})
a.update({'key 2': 'y'})
eventually(lambda: after == [b'y'])

for wrong in (('rename', note), ('add', 5)):
    raised((ValueError, TypeError), b.on, *wrong)
raised(TypeError, lambda: b.on('add', note, key='a', prefix='b'))
b.remove_all_listeners('delete')
assert b.listeners('delete') == [] and len(b.listeners('change')) == 2
b.remove_all_listeners()
eventually(lambda: not b._service.node.watching._watches)

# A listener may add listeners, remove itself, and close the socket.
def closes(sock, event):
    sock.on('delete', note)
    sock.remove_listener('add', closes)
    sock.close()

b.on('add', closes)
a['last'] = '1'
eventually(lambda: b.status == 'Closed')
raised(errors.NotConnected, b.on, 'add', note)
eventually(lambda: sum(one.name == 'chord listeners' for one in threading.enumerate()) == 1)

a.on('change', lambda sock, event: time.sleep(60))
a['last'] = '2'
a.unjoin(discard=True)
"""

#: A member with keys whose process ends, in one way or another.
ENDING = """
from common import *
how, port = sys.argv[1], int(sys.argv[2])
sock = new()
sock.connect('localhost', port)
sock.join()
sock.update({f'{how} {number}': 'v' * 100 for number in range(500)})
eventually(lambda: sock.next and len(sock._service.node.core.acceptors))
for key in sock: break
if how == 'raise': raise RuntimeError('of the script')
if how == 'thread':
    def busy():
        while True: sock['busy'] = 'thread'
    threading.Thread(target=raised, args=(errors.NotConnected, busy)).start()
if how == 'frozen': freeze_the_keeper()
"""

LOGGING = """
from common import *
import logging, warnings
a = founder(debug_level=1)
a['secret key'] = 'secret value'
a.unjoin(discard=True)
b = founder()
warnings.warn('still as Python shows it')
logging.basicConfig(level=logging.INFO, format='%(name)s: %(message)s')
b.unjoin(discard=True)
"""


class Script:
    """A Python process; it is killed if its time is over."""

    def __init__(self, folder: Path, script: str, arguments: tuple[str, ...]) -> None:
        path = folder / "script.py"
        path.write_text(script, "utf-8")
        self.process = subprocess.Popen(
            [sys.executable, str(path), *arguments],
            cwd=folder,
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._guard = threading.Timer(PATIENCE, self.process.kill)
        self._guard.start()

    def line(self) -> str:
        """The next line that it prints."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def tell(self) -> None:
        """Send it a line."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def freeze(self) -> None:
        """Stop it; returns when all of its threads stand still."""
        self.process.send_signal(signal.SIGSTOP)
        os.waitpid(self.process.pid, os.WUNTRACED)

    def end(self) -> tuple[int, str, str]:
        """Wait for its end: the exit code, stdout and stderr."""
        stdout, stderr = self.process.communicate()
        self._guard.cancel()
        return self.process.returncode, stdout, stderr

    def kill(self) -> None:
        """Nobody needs it any more."""
        self.process.kill()
        self._guard.cancel()
        self.process.communicate()


class ProcessTests(SynchronousTestCase):
    """Scripts in processes of their own."""

    def begin(self, script: str, *arguments: str) -> Script:
        """Start a script in a folder of its own."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        (Path(folder.name) / "common.py").write_text(COMMON, "utf-8")
        started = Script(Path(folder.name), script, arguments)
        self.addCleanup(started.kill)
        return started

    def keeper(self) -> tuple[Script, str]:
        """A node in a process of its own, and its port."""
        keeper = self.begin(KEEPER)
        return keeper, keeper.line()

    def freeze_when_asked(self, keeper: Script, script: Script) -> None:
        """Stop the keeper at the point where the script wants it."""
        if script.line() != "freeze":
            self.check(script)  # shows why it ended early
        keeper.freeze()
        script.tell()

    def check(self, script: Script, code: int = 0, stderr: str = r"\A\Z") -> None:
        """Wait for the end of a script, which must be as expected."""
        ended = script.end()
        everything = "exit code {}\n--- stdout\n{}\n--- stderr\n{}".format(*ended)
        self.assertEqual(ended[0], code, everything)
        self.assertTrue(re.search(stderr, ended[2]), everything)
        self.assertNotIn("Unhandled", everything)

    def test_example(self) -> None:
        """A user's first try; one line tells that the last node's keys end with it."""
        script = EXAMPLE
        free = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
        for port, server in zip(("4444", "4445"), free, strict=True):
            script = script.replace(port, str(server.getsockname()[1]))
            server.close()
        expected = r"\AStopping without handing over: 1 key lost with this process\. [^\n]*\n\Z"
        self.check(self.begin(script), stderr=expected)

    def test_attributes(self) -> None:
        """What a socket tells of itself, from its first day to its last."""
        self.check(self.begin(ATTRIBUTES))

    def test_errors(self) -> None:
        """Wrong arguments, ports that cannot be had, peers that are not there, other networks."""
        self.check(self.begin(ERRORS))

    def test_storage(self) -> None:
        """A socket with a storage is back where it was: closed, left open at the end, or killed."""
        for how in ("kill", "end"):
            folder = self.mktemp()
            with socket.create_server(("127.0.0.1", 0)) as server:
                port = str(server.getsockname()[1])
            arguments = (os.path.abspath(folder), port)
            code = -signal.SIGKILL if how == "kill" else 0
            self.check(self.begin(STORAGE, *arguments, "first", how), code=code)
            self.check(self.begin(STORAGE, *arguments, "second"))

    def test_threads(self) -> None:
        """Eight threads use two sockets, and every increment counts; the reactor's may not."""
        self.check(self.begin(THREADS))

    def test_listeners(self) -> None:
        """One thread calls them, in order; what they raise is logged once."""
        script = self.begin(LISTENERS)
        code, _, stderr = script.end()
        self.assertEqual(code, 0, stderr)
        self.assertEqual(stderr.count("A listener of 'change' failed"), 1, stderr)
        self.assertEqual(stderr.count("ZeroDivisionError"), 2, stderr)  # the source line, too

    def test_application(self) -> None:
        """Where the program runs the reactor itself, it is told to use the service."""
        self.check(self.begin(APPLICATION))

    def test_fork(self) -> None:
        """Forked before the first socket a process has its own; after it, a clear error."""
        self.check(self.begin(FORK), stderr=r"\A([^\n]*DeprecationWarning[^\n]*\n[^\n]*\n)*\Z")

    def test_silence(self) -> None:
        """A node freezes: time-outs, Ctrl-C and close, without a word in the log."""
        keeper, port = self.keeper()
        script = self.begin(SILENCE, port, str(keeper.process.pid))
        self.freeze_when_asked(keeper, script)
        self.check(script)

    def test_exit(self) -> None:
        """However a process ends, its open sockets hand over to another process, and it ends."""
        keeper, port = self.keeper()
        error = r"\ATraceback[^\0]*RuntimeError: of the script\n\Z"
        ways = (("end", 0, r"\A\Z"), ("raise", 1, error), ("thread", 0, r"\A\Z"))
        ending = [self.begin(ENDING, how, port) for how, _, _ in ways]
        for script, (_, code, stderr) in zip(ending, ways, strict=True):
            self.check(script, code, stderr)
        keeper.tell()
        self.assertEqual(keeper.line(), str(3 * 500 + 1))
        self.check(keeper)

    def test_exit_without_an_heir(self) -> None:
        """The only other node is frozen: the process ends all the same, and says so."""
        keeper, port = self.keeper()
        ending = self.begin(ENDING, "frozen", port)
        self.freeze_when_asked(keeper, ending)
        began = time.monotonic()
        kept = r"\d+ keys (still kept by other nodes|kept only by nodes that do not answer)"
        self.check(ending, stderr=rf"\AStopping without handing over: {kept}\. [^\n]*\n\Z")
        self.assertLess(time.monotonic() - began, 10)

    def test_logging(self) -> None:
        """debug_level=1 tells the story on stderr, until the program sets logging up itself."""
        line = r"[\d-]+ [\d:,]+ INFO %s ring \w+[^\n]*\n"
        expected = line % "Founded" + line % "Left" + line % "Founded"
        expected += r"[^\n]*UserWarning: still as Python shows it\n[^\n]*\n"
        expected += r"py2p_twisted\.node\.core\.Core: Left ring [^\n]*\n"
        self.check(self.begin(LOGGING), stderr=rf"\A{expected}")
