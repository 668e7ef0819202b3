"""redis-py's RedisCluster against a running cluster; see tests/cluster.sh.

    cluster.py check ROUTING PORT…    commands, tags, replicas, scans
    cluster.py soak ROUTING PORT…     writers that count; somebody else moves the leaders

The soak is that of tests/clients: a writer sets keys of its own to 1, 2, 3 …; a write that was answered must
be read back; one whose outcome is unknown ends its key; what was certainly not executed is sent again.
"""

import sys
import threading
import time

from redis.cluster import ClusterNode, LoadBalancingStrategy, RedisCluster
from redis.exceptions import ClusterDownError, RedisError, ResponseError

NOT_EXECUTED = ("BUSY", "LOADING", "NOLEADER")
KEYS = 32
WRITERS = 4
WRITES = 1000
ATTEMPTS_MAX = 600


def connect(ports, near=False):
    nodes = [ClusterNode("127.0.0.1", port) for port in ports]
    strategy = LoadBalancingStrategy.RANDOM_REPLICA if near else None
    return RedisCluster(
        startup_nodes=nodes,
        load_balancing_strategy=strategy,
        decode_responses=True,
        socket_timeout=10,
    )


def expect(what, got, expected):
    if got != expected:
        sys.exit(f"{what}: expected {expected!r}, got {got!r}")


def check(routing, ports):
    here, near = connect(ports), connect(ports, near=True)
    expect("nodes", sorted(node.port for node in here.get_nodes()), sorted(ports))
    here.flushall()
    keys = [f"py:{number}" for number in range(200)]
    for key in keys:
        here.set(key, key)
        expect(f"GET {key} of a replica", near.get(key), key)
    # A client that was told MOVED takes the former leader for a replica until it reads the slots again
    # (docs/commands.md), so that what all masters say together is asked by one that was told nothing.
    whole = connect(ports)
    found = list(whole.scan_iter("py:*", count=17))
    if routing == "redirect":
        expect("DBSIZE, put together", whole.dbsize(target_nodes=RedisCluster.PRIMARIES), 200)
        expect("SCAN, put together", sorted(found), sorted(keys))
    else:  # to a connection that never said CLUSTER, a node tells of the whole
        expect("SCAN finds all keys", sorted(set(found)), sorted(keys))
    expect("INCRBY", here.incrby("py:n", 5), 5)
    expect("MSET of one tag", here.mset({"{py}a": 1, "{py}b": 2}), True)
    expect("MGET of one tag", here.mget("{py}a", "{py}b"), ["1", "2"])
    expect("keys of a slot", here.cluster_countkeysinslot(here.keyslot("{py}a")), 2)
    expect("MGET of several", here.mget_nonatomic("py:1", "py:2", "py:3"), keys[1:4])
    pipeline = here.pipeline()
    for key in keys:
        pipeline.get(key)
    expect("a pipeline over all nodes", pipeline.execute(), keys)
    expect("CLUSTER INFO", here.cluster_info()["cluster_state"], "ok")
    expect("DEL over all nodes", here.delete(*keys), 200)
    print("redis-py's RedisCluster is served")


class Tally:
    def __init__(self):
        self.written = self.unknown = self.again = 0


def insist(tally, send):
    """Sends a command again as long as it is certain that it was not executed."""
    for _ in range(ATTEMPTS_MAX):
        try:
            return send()
        except ClusterDownError:
            pass
        except ResponseError as error:
            if not str(error).startswith(NOT_EXECUTED):
                raise
        tally.again += 1
        time.sleep(0.1)
    sys.exit("the cluster is dead")


def read_back(tally, client, key, number):
    for _ in range(ATTEMPTS_MAX):
        try:
            found = insist(tally, lambda: client.get(key))
        except RedisError:
            time.sleep(0.1)  # a read changes nothing: it is sent until it is answered
            continue
        if found != str(number):
            raise AssertionError(f"LOST: {key} is {found!r}, not {number}")
        return
    raise AssertionError(f"{key} cannot be read")


def write(ports, writer, tally):
    here, near = connect(ports), connect(ports, near=True)
    kept, lives = {}, [0] * KEYS
    for number in range(1, WRITES + 1):
        place = number % KEYS
        key = f"soak:py:{writer}:{place}:{lives[place]}"
        try:
            insist(tally, lambda: here.set(key, number))
        except RedisError as error:
            print(f"SET {key} {number}: {type(error).__name__} {error}", file=sys.stderr)
            tally.unknown += 1
            kept.pop(key, None)
            lives[place] += 1
            continue
        tally.written += 1
        kept[key] = number
        read_back(tally, near if number % 2 == 0 else here, key, number)
    for key, number in kept.items():
        read_back(tally, here, key, number)


def soak(_routing, ports):
    tallies = [Tally() for _ in range(WRITERS)]
    failures = []

    def run(writer):
        try:
            write(ports, writer, tallies[writer])
        except BaseException as error:  # whatever it is, the soak has failed
            failures.append(f"writer {writer}: {type(error).__name__} {error}")

    threads = [threading.Thread(target=run, args=(writer,)) for writer in range(WRITERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        sys.exit("\n".join(failures))
    written = sum(tally.written for tally in tallies)
    unknown = sum(tally.unknown for tally in tallies)
    again = sum(tally.again for tally in tallies)
    expect("all writes", written + unknown, WRITERS * WRITES)
    print(f"redis-py: {written} writes read back, {unknown} unknown, {again} sent again, lost 0")


if __name__ == "__main__":
    {"check": check, "soak": soak}[sys.argv[1]](sys.argv[2], [int(port) for port in sys.argv[3:]])
