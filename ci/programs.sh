#!/usr/bin/env bash
# Real programs on the C door: each does the same work without the library and with it preloaded, the
# outputs are compared, and the library must have served.
#
#   ci/programs.sh              all of them
#   ci/programs.sh NAME...      some
#   ci/programs.sh --install    only installs what they need
#   LIBRARY=PATH ci/programs.sh on another library than what ci/library.sh builds
#
# Installs what it needs on Debian. Servers listen on sockets in a directory of their own, or on a free
# port of the loopback interface, and are stopped when their work ends.
set -euo pipefail
cd "$(dirname "$0")/.."
self=$PWD/ci/programs.sh
here=$PWD

programs=(python ours sqlite git gcc gxx perl node java redis memcached nginx postgres)

packages_python=python3 # and the tests of its version, see below
packages_ours="gcc g++"
packages_sqlite=sqlite3
packages_git=git
packages_gcc=gcc
packages_gxx=g++
packages_perl=perl
packages_node=nodejs
packages_java=default-jdk-headless
packages_redis="redis-server redis-tools"
packages_memcached="memcached python3"
packages_nginx="nginx apache2-utils curl procps python3"
packages_postgres="postgresql procps"

# ---------------------------------------------------------------- the programs
# Each work_NAME runs in an empty directory, prints what must be the same in both runs, and calls
# `expect COMMAND...` or `expect_pid PID` for the processes that the library must have served.

python=/usr/bin/python3

# CPython's own tests. Its objects come from malloc, not from its arenas.
work_python() {
    expect python3
    export PYTHONMALLOC=malloc
    local status=0
    $python -m test -v test_json test_gc test_threading test_multiprocessing_fork >log 2>&1 || status=$?
    # What a test prints in between may stand before its verdict.
    grep -oE '(ok|FAIL|ERROR|expected failure|skipped .*)$' log | grep -c . | sed 's/^/verdicts: /'
    grep -E '^[A-Za-z_]+ \([A-Za-z0-9_.]+\)' log | grep -E ' \.\.\. ' | sed 's/ \.\.\. .*//' | LC_ALL=C sort
    grep -E '^(Ran [0-9]+ tests|FAIL|ERROR|[0-9]+ tests? (OK|failed)|All )' log | sed 's/ in [0-9.]*s$//'
    [ $status = 0 ] || tail -n 50 log
    return $status
}

# The programs that `cargo run --release -p c-programs` compares allocators with.
work_ours() {
    "$here/benches/c/programs/compile.sh" bin
    local program
    for program in bin/*; do
        expect "$(basename "$program" | cut -c1-15)"
        "$program"
    done
    bin/queue 4
    bin/mixed_threads 4
    bin/words 4
}

work_sqlite() {
    expect sqlite3
    sqlite3 test.db <<'SQL'
CREATE TABLE person(id INTEGER PRIMARY KEY, name TEXT, city TEXT, born INTEGER, note BLOB);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 120000)
INSERT INTO person SELECT i, 'name ' || (i * 7919 % 100003), 'city ' || (i % 997), 1900 + i % 120,
    zeroblob(i % 300) FROM n;
CREATE INDEX by_name ON person(name);
CREATE INDEX by_city ON person(city, born);
SELECT city, count(*), avg(born) FROM person GROUP BY city ORDER BY 2 DESC, 1 LIMIT 5;
SELECT count(*) FROM person a JOIN person b ON a.name = b.name AND a.id < b.id;
SELECT sum(length(names)) FROM (SELECT group_concat(name, ', ') AS names FROM person GROUP BY born);
UPDATE person SET note = zeroblob(4) || CAST(name AS BLOB) WHERE id % 3 = 0;
DELETE FROM person WHERE id % 7 = 0;
SELECT json_group_array(json_object('id', id, 'name', name)) FROM person WHERE id < 20;
SELECT count(*), sum(length(j)) FROM (SELECT json_object('c', city, 'all', json_group_array(name)) AS j
    FROM person GROUP BY city);
WITH RECURSIVE ranked AS (SELECT name, row_number() OVER (PARTITION BY city ORDER BY born, id) AS r FROM person)
SELECT sum(r) FROM ranked;
VACUUM;
PRAGMA integrity_check;
.sha3sum
SQL
}

# A history made from nothing, so that it is the same everywhere; then clone, repack and check it.
work_git() {
    expect git
    export HOME=$PWD GIT_CONFIG_NOSYSTEM=1 GIT_AUTHOR_DATE="1700000000 +0000" GIT_COMMITTER_DATE="1700000000 +0000"
    git config --global user.name Name && git config --global user.email name@example.org
    git config --global init.defaultBranch main && git config --global pack.threads 1
    git config --global gc.auto 0
    git init -q --bare origin.git
    perl -e '
        for my $c (1 .. 150) {
            print "commit refs/heads/main\ncommitter Name <name\@example.org> ", 1700000000 + $c, " +0000\n";
            my $m = "commit $c"; print "data ", length $m, "\n$m\n";
            for my $f (0 .. 5) {
                my $n = ($c * 31 + $f * 17) % 200;
                my $t = join "", map { "line $_ of file $n: " . ($_ * $c % 1013) . "\n" } 1 .. 40 + $n;
                print "M 100644 inline dir", $n % 13, "/file$n\ndata ", length $t, "\n$t\n";
            }
        }' | git -C origin.git fast-import --quiet
    git clone -q --no-local origin.git clone
    cd clone
    for i in 1 2 3; do
        seq $((i * 1000)) >numbers && git add numbers && git commit -qm "numbers $i"
    done
    git gc -q --prune=now
    git fsck --full --strict 2>&1
    git log --format='%H %T' --stat | sha256sum
    git grep -c "line 7 of" | sha256sum
    git blame -s "$(git ls-files 'dir*' | sed -n 5p)" | sha256sum
    git diff HEAD~90 HEAD~3 | sha256sum
    git count-objects -v | grep -E '^(count|in-pack|packs|garbage)'
    git archive HEAD | sha256sum
}

work_gcc() {
    expect gcc cc1 as
    perl -e '
        print "#include <stdio.h>\n";
        for my $f (0 .. 299) {
            print "struct s$f { int a[", $f % 9 + 1, "]; struct s$f *next; };\n";
            print "static int f$f(struct s$f *p, int n) { int sum = 0; for (int i = 0; i < n; i++) {\n";
            print "  switch ((i * $f) & 15) { ", join(" ", map { "case $_: sum += p->a[0] * $_ + i; break;" } 0 .. 12), " }\n";
            print "  if (p->next && sum > $f) p = p->next; } return sum; }\n";
        }
        print "int main(void) { int t = 0;\n";
        print "  { struct s$_ x = {{$_}, 0}; x.next = &x; t += f$_(&x, 50); }\n" for 0 .. 299;
        print "  printf(\"%d\\n\", t); }\n"' >big.c
    gcc -O2 -c big.c -o big.o
    gcc -O1 -flto -g "$here"/benches/c/programs/json.c -o json
    for file in "$here"/benches/c/programs/*.c; do gcc -O2 -S "$file" -o - | sha256sum; done
    sha256sum big.o
    gcc big.o -o big && ./big
    ./json
}

work_gxx() {
    expect g++ cc1plus as
    cat >templates.cpp <<'CPP'
#include <algorithm>
#include <functional>
#include <iostream>
#include <map>
#include <memory>
#include <regex>
#include <sstream>
#include <string>
#include <tuple>
#include <variant>
#include <vector>
template <int N> struct Chain { std::variant<int, std::string, std::map<int, Chain<N - 1>>> v; };
template <> struct Chain<0> { int v; };
template <typename... T> auto many(T... t) { return std::make_tuple(std::vector<T>{t}...); }
int main() {
    Chain<12> chain; chain.v = 3;
    auto t = many(1, 2L, 3.0, std::string("x"), 'c', 5u);
    std::regex word("([a-z]+)([0-9]*)");
    std::string s = "abc12 def ghi7"; std::smatch m;
    while (std::regex_search(s, m, word)) { std::cout << m[1] << '|' << m[2] << '\n'; s = m.suffix(); }
    std::function<int(int)> f = [&](int i) { return i ? i + f(i - 1) : 0; };
    std::cout << f(10) << std::get<0>(t).size() << chain.v.index() << '\n';
}
CPP
    g++ -std=c++20 -O2 -c templates.cpp -o templates.o
    g++ -std=c++20 -O1 -c "$here"/benches/c/programs/containers.cpp -o containers.o
    sha256sum templates.o containers.o
    g++ templates.o -o templates && ./templates
}

work_perl() {
    expect perl
    export PERL_HASH_SEED=0
    perl -e '
        use strict; use warnings; use threads; use Digest::SHA "sha256_hex"; use Storable "dclone";
        my (%h, @l);
        for my $i (1 .. 150000) {
            my $key = "key " . ($i * 7919 % 40009);
            push @{$h{$key}}, "value $i" x ($i % 5);
            delete $h{"key " . ($i * 31 % 40009)} if $i % 3 == 0;
            push @l, join ",", reverse split //, $key;
            @l = () if @l > 5000;
        }
        my $text = join "\n", map { "$_=" . join "+", @{$h{$_}} } sort keys %h;
        print sha256_hex($text), "\n";
        (my $other = $text) =~ s/(\w+) (\d+)/$2 \u$1/g;
        print sha256_hex($other), " ", scalar(() = $other =~ /7\d+ Value/g), "\n";
        print scalar(keys %{dclone(\%h)}), "\n";
        my @t = map { my $n = $_; threads->create(sub { my $s = ""; $s .= chr(97 + ($_ * $n) % 26) for 1 .. 100000; sha256_hex($s) }) } 1 .. 4;
        print $_->join, "\n" for @t;
        for my $n (1 .. 5) {
            open my $child, "-|" or do { print sha256_hex($text . $n), "\n"; exit };
            print <$child>; close $child;
        }'
}

work_node() {
    expect node
    cat >work.js <<'JS'
const { Worker, isMainThread, parentPort, workerData } = require('worker_threads');
const crypto = require('crypto'), zlib = require('zlib');
const sha = data => crypto.createHash('sha256').update(data).digest('hex');
function work(seed) {
    let list = [];
    for (let i = 0; i < 60000; i++) list.push({ id: i * seed, name: 'n'.repeat(i % 40), tags: [i, i % 7] });
    let text = JSON.stringify(list);
    let copy = JSON.parse(text).filter(one => one.id % 3).map(one => Buffer.from(one.name + one.id));
    let all = Buffer.concat(copy), small = zlib.gzipSync(all, { level: 6 });
    return [sha(text), sha(all), zlib.gunzipSync(small).equals(all), small.length];
}
if (isMainThread) {
    (async () => {
        console.log(work(1));
        let jobs = [2, 3, 4].map(seed => new Promise((done, fail) => {
            let worker = new Worker(__filename, { workerData: seed });
            worker.on('message', done); worker.on('error', fail);
        }));
        for (let result of await Promise.all(jobs)) console.log(result);
        let deflated = await Promise.all([1, 2, 3, 4, 5, 6].map(n => new Promise((done, fail) =>
            zlib.brotliCompress(Buffer.alloc(300000, 'text ' + n), (e, data) => e ? fail(e) : done(data.length)))));
        console.log(deflated, require('child_process').execFileSync('node', ['-p', '6*7']).toString());
    })();
} else parentPort.postMessage(work(workerData));
JS
    node work.js
}

work_java() {
    expect java javac
    cat >Work.java <<'JAVA'
import java.nio.ByteBuffer;
import java.security.MessageDigest;
import java.util.*;
import java.util.concurrent.*;
import java.util.stream.*;
import java.util.zip.*;

public class Work {
    static String work(int seed) throws Exception {
        Map<String, List<Integer>> index = new TreeMap<>();
        for (int i = 0; i < 60000; i++)
            index.computeIfAbsent("key " + (i * 31L * seed) % 5003, k -> new ArrayList<>()).add(i);
        byte[] text = index.toString().getBytes("UTF-8");
        Deflater deflater = new Deflater();
        deflater.setInput(text); deflater.finish();
        ByteBuffer direct = ByteBuffer.allocateDirect(text.length + 1000);
        byte[] part = new byte[4096];
        while (!deflater.finished()) direct.put(part, 0, deflater.deflate(part));
        deflater.end();
        direct.flip();
        Inflater inflater = new Inflater();
        inflater.setInput(direct);
        byte[] back = new byte[text.length];
        int got = inflater.inflate(back);
        inflater.end();
        byte[] digest = MessageDigest.getInstance("SHA-256").digest(back);
        return seed + " " + got + " " + String.format("%064x", new java.math.BigInteger(1, digest));
    }

    public static void main(String[] arguments) throws Exception {
        ExecutorService pool = Executors.newFixedThreadPool(4);
        List<Future<String>> results = new ArrayList<>();
        for (int i = 1; i <= 12; i++) { int seed = i; results.add(pool.submit(() -> work(seed))); }
        for (Future<String> result : results) System.out.println(result.get());
        pool.shutdown();
        for (int i = 0; i < 300; i++) { Thread t = new Thread(() -> ByteBuffer.allocateDirect(10000)); t.start(); t.join(); }
        System.out.println(IntStream.range(0, 500000).parallel().mapToObj(Integer::toString).collect(Collectors.toSet()).size());
    }
}
JAVA
    javac -J-Xmx512m Work.java
    for collector in Serial Parallel G1; do java -Xmx512m -XX:+Use${collector}GC Work; done
}

work_redis() {
    redis-server --port 0 --unixsocket "$PWD/s" --save "" --appendonly no --dir "$PWD" --daemonize no >log 2>&1 &
    serves $! "redis-cli -s s ping"
    redis-benchmark -s s -q -n 20000 -c 20 -P 4 -r 5000 -d 200 \
        -t set,get,incr,lpush,rpush,lpop,sadd,hset,zadd,zpopmin,lrange_100,mset >bench 2>&1
    # Rates differ; which tests ran does not.
    tr '\r' '\n' <bench | sed -n 's/: [0-9.]* requests per second.*//p' | sort -u
    redis-cli -s s flushall
    # The same keys on every run: a digest of the whole contents, before and after save and reload.
    for i in $(seq 1 3000); do
        echo "SET key:$i value-$((i * 7919 % 1009))"
        echo "RPUSH list:$((i % 50)) $i"
        echo "HSET hash:$((i % 70)) field$i $((i * i % 1013))"
        echo "ZADD zset $((i * 31 % 997)) member$i"
        echo "APPEND text:$((i % 9)) some-more-text-$i"
    done | redis-cli -s s --pipe | grep -E 'errors|replies'
    redis-cli -s s eval "local t={} for i=1,20000 do t[i]=redis.call('GET','key:'..(i%3000+1)) end return #table.concat(t)" 0
    redis-cli -s s debug digest
    redis-cli -s s bgsave >bgsave
    for _ in $(seq 100); do
        [ "$(redis-cli -s s info persistence | grep -c 'rdb_bgsave_in_progress:0')" = 1 ] && break
        sleep 0.1
    done
    redis-cli -s s debug reload && redis-cli -s s debug digest
    redis-cli -s s config set activedefrag yes 2>&1 | grep -c . || true
    redis-cli -s s dbsize
    redis-cli -s s shutdown nosave || true
    wait $!
}

work_memcached() {
    memcached -s "$PWD/s" -a 0700 -t 4 -m 64 -u "$(id -un)" >log 2>&1 &
    serves $! "test -S s"
    $python - <<'PY'
import hashlib, random, socket, threading
def client(number, results):
    r = random.Random(number)
    s = socket.socket(socket.AF_UNIX); s.connect('s'); f = s.makefile('rwb')
    digest = hashlib.sha256()
    for i in range(4000):
        key = b'k%d-%d' % (number, r.randrange(500))
        value = bytes([97 + i % 26]) * r.randrange(1, 4000)
        f.write(b'set %s 0 0 %d\r\n%s\r\nget %s\r\n' % (key, len(value), value, key)); f.flush()
        assert f.readline() == b'STORED\r\n'
        head = f.readline().split(); assert head[:2] == [b'VALUE', key], head
        got = f.read(int(head[3])); assert got == value
        digest.update(got); f.readline(); assert f.readline() == b'END\r\n'
    results[number] = digest.hexdigest()
results = {}
threads = [threading.Thread(target=client, args=(n, results)) for n in range(8)]
[t.start() for t in threads]; [t.join() for t in threads]
for n in sorted(results): print(n, results[n])
s = socket.socket(socket.AF_UNIX); s.connect('s'); f = s.makefile('rwb')
f.write(b'stats\r\n'); f.flush()
for line in iter(f.readline, b'END\r\n'):
    if line.split()[1] in (b'cmd_get', b'cmd_set', b'get_hits', b'get_misses'): print(line.decode().strip())
PY
}

work_nginx() {
    mkdir -p www tmp
    seq 1 20000 >www/numbers.txt && seq 1 10 >www/small.txt
    local port
    port=$($python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    cat >nginx.conf <<CONF
daemon off; worker_processes 2; pid $PWD/pid; error_log $PWD/error.log;
events { worker_connections 256; }
http {
    access_log $PWD/access.log; gzip on; gzip_types text/plain; gzip_min_length 100; default_type text/plain;
    client_body_temp_path $PWD/tmp; proxy_temp_path $PWD/tmp; fastcgi_temp_path $PWD/tmp;
    uwsgi_temp_path $PWD/tmp; scgi_temp_path $PWD/tmp;
    server { listen 127.0.0.1:$port; root $PWD/www;
        location /proxied/ { proxy_pass http://127.0.0.1:$port/; } }
}
CONF
    # Its workers, too, run as this user, who may read the directory.
    [ "$(id -u)" = 0 ] && sed -i '1i user root;' nginx.conf
    /usr/sbin/nginx -p "$PWD" -c "$PWD/nginx.conf" -e "$PWD/error.log" &
    local server=$!
    serves $server "curl -sf http://127.0.0.1:$port/small.txt"
    for worker in $(pgrep -P $server); do expect_pid "$worker"; done
    for url in small.txt numbers.txt proxied/numbers.txt; do
        ab -q -k -n 3000 -c 20 -H 'Accept-Encoding: gzip' "http://127.0.0.1:$port/$url" |
            grep -E '^(Complete|Failed|Non-2xx|Document Length)'
        curl -s "http://127.0.0.1:$port/$url" | sha256sum
        curl -s --compressed "http://127.0.0.1:$port/$url" | sha256sum
    done
    kill -HUP $server && sleep 0.5
    curl -s "http://127.0.0.1:$port/small.txt" | sha256sum
    kill -QUIT $server
    wait $server
}

# As a user that is not root, as PostgreSQL demands.
user_postgres=postgres
work_postgres() {
    local bin
    bin=$(ls -d /usr/lib/postgresql/*/bin | sort -V | tail -1)
    expect initdb pgbench psql
    "$bin/initdb" -D data -A trust -N --locale=C -E UTF8 | grep -E '^(Success|creating|The)' | grep -v -i owned
    "$bin/postgres" -D data -k "$PWD" -c listen_addresses= -c fsync=off -c jit=off -c max_connections=20 >log 2>&1 &
    local server=$!
    export PGHOST=$PWD PGDATABASE=postgres
    serves $server "psql -c 'select 1'"
    pgbench -q -i -s 2 >/dev/null 2>&1
    pgbench -n -c 4 -j 2 -t 400 | grep -E '^(number of (transactions|clients|failed)|scaling)'
    pgbench -n -S -c 4 -j 2 -t 1000 -M prepared | grep -E '^number of transactions'
    for worker in $(pgrep -P $server); do expect_pid "$worker"; done
    psql -At <<'SQL'
select count(*) from pgbench_history;
select (select sum(abalance) from pgbench_accounts) = (select sum(tbalance) from pgbench_tellers),
       (select sum(delta) from pgbench_history) = (select sum(bbalance) from pgbench_branches);
create table t as select i, md5(i::text) as m, repeat('x', i % 200) as r from generate_series(1, 100000) i;
create index on t(m); create index on t using hash(r); analyze t;
select count(*), md5(string_agg(m, ',' order by i)) from t;
select count(*) from t a join t b on a.m = b.m where a.i % 7 = 0;
select md5(string_agg(g, '')) from (select json_agg(t order by i)::text as g from t group by i % 100 order by i % 100) s;
select r, count(*) from t group by r order by 2 desc, 1 limit 3;
do $$ begin for k in 1..2000 loop execute 'select ' || k; end loop; end $$;
select 1 / (count(*) - count(*)) from t;
select count(*) from regexp_split_to_table(repeat('a b ', 20000), ' ');
SQL
    kill -INT $server
    wait $server
}

# ---------------------------------------------------------------- the harness

fail() {
    echo "ci/programs: $*" >&2
    exit 1
}

# Inside a run: these commands must have been served; the log of statistics says so at the end.
expect() { for command in "$@"; do echo "command $command" >>"$PROOF"; done; }

# Inside a run: this live process must have the library mapped.
expect_pid() {
    if [ -n "${LD_PRELOAD:-}" ]; then
        local comm
        # One that has just ended proves nothing and is no fault.
        comm=$(cat "/proc/$1/comm" 2>/dev/null) || return 0
        if grep -qsF "$LD_PRELOAD" "/proc/$1/maps"; then
            echo "pid $1 $comm" >>"$PROOF"
        elif kill -0 "$1" 2>/dev/null; then
            fail "process $1 ($comm) is not on the library"
        fi
    fi
}

# Inside a run: waits until a server answers the command, and checks that the library serves it.
serves() {
    local tries
    for tries in $(seq 200); do
        kill -0 "$1" 2>/dev/null || { cat log >&2 2>/dev/null; fail "the server ended at once"; }
        if eval "$2" >/dev/null 2>&1; then
            expect_pid "$1"
            return
        fi
        sleep 0.1
    done
    fail "the server did not answer in $tries tries: $2"
}

if [ "${1:-}" = --work ]; then
    # What is still running when the work ends, ends with it.
    trap 'trap - EXIT; jobs=$(jobs -p); [ -z "$jobs" ] || kill $jobs 2>/dev/null || true' EXIT
    cd "$3"
    "work_$2"
    exit
fi

if [ -n "${LD_PRELOAD:-}" ]; then fail "LD_PRELOAD is set already"; fi
install=
[ "${1:-}" != --install ] || { install=1 && shift; }
[ $# -gt 0 ] || set -- "${programs[@]}"
for name in "$@"; do
    declare -F "work_$name" >/dev/null || fail "no program '$name'; there are: ${programs[*]}"
done

wanted=()
for name in "$@"; do
    packages=packages_$name
    wanted+=(${!packages})
done
ci/packages.sh "${wanted[@]}"
case " $* " in *" python "*)
    ci/packages.sh "libpython$($python -c 'import sys; print("%d.%d" % sys.version_info[:2])')-testsuite"
    ;;
esac

[ -z "$install" ] || exit 0

[ -n "${LIBRARY:-}" ] || LIBRARY=$(ci/library.sh)

root=$(mktemp -d /tmp/programs.XXXXXX)
# What still runs is ended by its `timeout`, with all its processes.
trap 'jobs=$(jobs -p); [ -z "$jobs" ] || { kill $jobs || true; wait; }; rm -rf "$root"' EXIT
chmod 755 "$root"
install -m 755 "$LIBRARY" "$root/libspandrel.so"
library=$root/libspandrel.so

# run NAME plain|preloaded: one run, its output in $root/NAME/KIND.out.
run() {
    local name=$1 kind=$2 dir=$root/$1/$2 as=() status=0 user=user_$1
    mkdir -p "$dir"
    : >"$dir.proof" && : >"$dir.stats"
    if [ -n "${!user:-}" ] && [ "$(id -u)" = 0 ]; then
        chown -R "${!user}" "$dir" "$dir.proof" "$dir.stats"
        as=(setpriv --reuid "${!user}" --regid "${!user}" --clear-groups)
    fi
    local variables=("PROOF=$dir.proof")
    [ "$kind" = plain ] ||
        variables+=("LD_PRELOAD=$library" "SPANDREL=stats=$dir.stats")
    # `timeout` ends the whole group of processes.
    timeout --kill-after 5 600 "${as[@]}" env "${variables[@]}" "$self" --work "$name" "$dir" \
        >"$dir.out" 2>"$dir.err" </dev/null || status=$?
    echo "exit code $status" >>"$dir.out"
}

# check NAME: compares the two runs. Answers by its exit code and one line.
check() {
    local name=$1 dir=$root/$1 served
    if ! grep -qx 'exit code 0' "$dir/plain.out"; then
        tail -n 30 "$dir/plain.out" "$dir/plain.err" >&2
        fail "$name fails without the library, too"
    fi
    if ! diff -u "$dir/plain.out" "$dir/preloaded.out" >"$dir/diff"; then
        head -n 60 "$dir/diff" >&2
        tail -n 30 "$dir/preloaded.err" >&2
        fail "$name differs on the library"
    fi
    [ "$(wc -l <"$dir/plain.out")" -gt 1 ] || fail "$name printed nothing"
    if grep -n '^spandrel: ' "$dir/preloaded.err"; then fail "$name: the library complains"; fi
    # The snapshot adds up where no other thread goes on while the process ends; and the expected
    # processes are among those that ended.
    case $name in ours | sqlite | gcc | gxx | postgres)
        if grep -E '^  sum ' "$dir/preloaded.stats" | grep -v 'off by 0 B$'; then
            fail "$name: a snapshot does not add up"
        fi
        ;;
    esac
    local kind what rest
    while read -r kind what rest; do
        [ "$kind" != command ] || grep -qx "spandrel: [0-9][0-9]* $what" "$dir/preloaded.stats" ||
            fail "$name: no process $what came to its end on the library"
    done < <(sort -u "$dir/preloaded.proof")
    [ -s "$dir/preloaded.proof" ] || fail "$name: nothing proves that the library served"
    served=$(grep -cE '^spandrel: [0-9]+ ' "$dir/preloaded.stats" || true)
    echo "$name: same output ($(wc -l <"$dir/plain.out") lines), $served processes ended on the library," \
        "$(grep -c '^pid' "$dir/preloaded.proof" || true) seen serving"
}

# The two runs of a program go on beside each other. CPython's tests sleep most of their time: theirs go on beside all
# others.
start=$SECONDS
waiting=()
for name in "$@"; do
    if [ "$name" = python ]; then
        run python plain &
        waiting+=($!)
        run python preloaded &
        waiting+=($!)
    fi
done
for name in "$@"; do
    [ "$name" != python ] || continue
    begin=$SECONDS
    run "$name" plain &
    plain=$!
    run "$name" preloaded
    wait "$plain"
    check "$name"
    echo "    ($((SECONDS - begin)) s)"
done
for job in "${waiting[@]}"; do wait "$job"; done
case " $* " in *" python "*) check python ;; esac
echo "ci/programs: $# programs, $((SECONDS - start)) s"
