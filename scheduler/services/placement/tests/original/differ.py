"""Random requests to the openstack-placement package (in this process, SQLite) and to http://127.0.0.1:PORT.

usage: differ.py PORT CLOUDS SEED

Each cloud is new: random trees, inventories, traits, aggregates and allocations, made by the same requests on both
sides; then random requests for candidates and lists. Statuses, error codes and bodies must be equal but for texts,
times and the order of what has none. Prints DIFFERENT and the two answers, and at the end COMPARED <requests>.
"""
import json
import os
import random
import sys
import tempfile
import urllib.error
import urllib.request
import uuid

from oslo_config import cfg
from oslo_policy import opts as policy_opts
from placement import conf as options
from placement import deploy
from placement.db.sqlalchemy import models
import placement.db_api
import webob

PORT, CLOUDS, SEED = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
rnd = random.Random(SEED)
CLASSES = ['VCPU', 'MEMORY_MB', 'DISK_GB', 'SRIOV_NET_VF', 'CUSTOM_GOLD']
TRAITS = ['HW_CPU_X86_AVX', 'HW_CPU_X86_SSE', 'STORAGE_DISK_SSD', 'CUSTOM_FAST']
SHARES = 'MISC_SHARES_VIA_AGGREGATE'
VERSIONS = ['1.%d' % n for n in range(40)]
compared = different = 0


def theirs_app(folder):
    conf = cfg.ConfigOpts()
    options.register_opts(conf)
    policy_opts.set_defaults(conf)
    conf.set_override('auth_strategy', 'noauth2', group='api')
    conf.set_override('connection', 'sqlite:///%s/original.db' % folder, group='placement_database')
    conf.set_override('sync_on_startup', True, group='placement_database')
    conf([], default_config_files=[])
    return deploy.loadapp(conf)


def theirs(app, method, path, body, version):
    request = webob.Request.blank(path, method=method)
    for name, value in headers(version).items():
        request.headers[name] = value
    if body is not None:
        request.body = json.dumps(body).encode()
    answer = request.get_response(app)
    return answer.status_int, answer.body


def ours(method, path, body, version):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request('http://127.0.0.1:%d%s' % (PORT, path), data=data, method=method, headers=headers(version))
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def headers(version):
    return {'x-auth-token': 'admin', 'x-roles': 'admin,service,member,reader', 'openstack-api-version': 'placement ' + version,
            'content-type': 'application/json', 'accept': 'application/json'}


def plain(value):
    """Without order where there is none, and without what is each side's own."""
    if isinstance(value, dict):
        if 'errors' in value:
            return [{k: v for k, v in e.items() if k in ('status', 'code')} for e in value['errors']]
        return {k: plain(v) for k, v in value.items() if k not in ('links',)}
    if isinstance(value, list):
        return sorted((plain(v) for v in value), key=lambda v: json.dumps(v, sort_keys=True))
    return value


class Cloud:
    def __init__(self, app):
        self.app, self.rps, self.sharing, self.consumers, self.generation = app, {}, set(), {}, {}

    def both(self, method, path, body=None, version='1.39', subset=False):
        """Asks both sides; gives our status and body."""
        global compared, different
        a, b = theirs(self.app, method, path, body, version), ours(method, path, body, version)
        compared += 1
        left, right = [(s, plain(json.loads(t)) if t else None) for s, t in (a, b)]
        same = left == right
        if not same and subset and left[0] == right[0] == 200:
            # What shares may be reached by several trees; the original then keeps the ways of one of them only.
            mine = right[1]['allocation_requests']
            same = all(way in mine for way in left[1]['allocation_requests'])
        if not same:
            different += 1
            print('DIFFERENT', method, path, version, json.dumps(body)[:600])
            print('   theirs', json.dumps(left)[:1500], '' if left[0] < 400 else a[1][:300])
            print('   ours  ', json.dumps(right)[:1500], '' if right[0] < 400 else b[1][:300], flush=True)
        return b[0], (json.loads(b[1]) if b[1] else None)

    def names(self):
        """The custom names are there, whoever had them from an earlier cloud."""
        for path in ('/traits/CUSTOM_FAST', '/resource_classes/CUSTOM_GOLD'):
            theirs(self.app, 'PUT', path, None, '1.39')
            ours('PUT', path, None, '1.39')

    def make(self):
        self.names()
        self.aggregates = [str(uuid.UUID(int=rnd.getrandbits(128), version=4)) for _ in range(3)]
        for _ in range(rnd.randint(1, 7)):
            self.add_provider()
        for _ in range(rnd.randint(0, 6)):
            self.allocate()

    def add_provider(self):
        rp = str(uuid.UUID(int=rnd.getrandbits(128), version=4))
        parents = [u for u in self.rps if u not in self.sharing]
        parent = rnd.choice(parents) if parents and rnd.random() < 0.6 else None
        version = rnd.choice(['1.14', '1.20', '1.39'])
        self.both('POST', '/resource_providers', {'name': rp[:8], 'uuid': rp, 'parent_provider_uuid': parent}, version)
        self.rps[rp] = parent
        generation = 0
        if rnd.random() < 0.9:
            stocks = {}
            for name in rnd.sample(CLASSES, rnd.randint(1, 3)):
                total = rnd.randint(1, 8)
                stocks[name] = {'total': total, 'reserved': rnd.choice([0, 0, 0, 1]), 'min_unit': rnd.choice([1, 1, 2]),
                                'max_unit': rnd.randint(1, 8), 'step_size': rnd.choice([1, 1, 2]), 'allocation_ratio': rnd.choice([1.0, 1.5, 2.0])}
            status, _ = self.both('PUT', '/resource_providers/%s/inventories' % rp,
                                  {'resource_provider_generation': generation, 'inventories': stocks}, rnd.choice(['1.0', '1.25', '1.26', '1.39']))
            generation += status == 200
        traits = rnd.sample(TRAITS, rnd.randint(0, 3))
        if parent is None and rnd.random() < 0.25:
            traits.append(SHARES)
            self.sharing.add(rp)
        if traits:
            status, _ = self.both('PUT', '/resource_providers/%s/traits' % rp, {'traits': traits, 'resource_provider_generation': generation})
            generation += status == 200
        if rnd.random() < 0.6:
            chosen = rnd.sample(self.aggregates, rnd.randint(1, 2))
            if rnd.random() < 0.3:
                self.both('PUT', '/resource_providers/%s/aggregates' % rp, chosen, '1.18')
            else:
                self.both('PUT', '/resource_providers/%s/aggregates' % rp, {'aggregates': chosen, 'resource_provider_generation': generation})

    def allocate(self):
        old = rnd.random() < 0.4 and self.consumers
        consumer = rnd.choice(list(self.consumers)) if old else str(uuid.UUID(int=rnd.getrandbits(128), version=4))
        resources = {rp: {'resources': {rnd.choice(CLASSES): rnd.randint(1, 3)}} for rp in rnd.sample(list(self.rps), min(len(self.rps), rnd.randint(1, 2)))}
        body = {'allocations': resources, 'project_id': rnd.choice(['p1', 'p2']), 'user_id': rnd.choice(['u1', 'u2'])}
        version = rnd.choice(['1.12', '1.28', '1.34', '1.38', '1.39'])
        if version >= '1.28':
            body['consumer_generation'] = self.consumers.get(consumer) if rnd.random() < 0.9 else 7
        if version >= '1.38':
            body['consumer_type'] = rnd.choice(['INSTANCE', 'MIGRATION'])
        status, _ = self.both('PUT', '/allocations/' + consumer, body, version)
        if status == 204:
            self.consumers[consumer] = self.consumers.get(consumer, 0) + 1
        if rnd.random() < 0.1:
            status, _ = self.both('DELETE', '/allocations/' + consumer)
            if status == 204:
                del self.consumers[consumer]

    def group(self, suffix, version, bare):
        parts = []
        if not bare:
            parts.append('resources%s=%s' % (suffix, ','.join('%s:%d' % (c, rnd.randint(1, 3)) for c in rnd.sample(CLASSES, rnd.randint(1, 2)))))
        minor = int(version[2:])
        if minor >= 17 and (bare or rnd.random() < 0.4):
            some = rnd.sample(TRAITS + ['COMPUTE_NODE'], rnd.randint(1, 2))
            if minor >= 39 and rnd.random() < 0.4:
                parts.append('required%s=in:%s' % (suffix, ','.join(some)))
            else:
                if minor >= 22 and not bare and rnd.random() < 0.4:
                    some = ['!' + t if rnd.random() < 0.5 else t for t in some]
                parts.append('required%s=%s' % (suffix, ','.join(some)))
        if minor >= 21 and not bare and rnd.random() < 0.3:
            some = rnd.sample(self.aggregates, rnd.randint(1, 2))
            value = 'in:' + ','.join(some) if len(some) > 1 or rnd.random() < 0.5 else some[0]
            if minor >= 32 and rnd.random() < 0.4:
                value = '!' + value
            parts.append('member_of%s=%s' % (suffix, value))
        if minor >= 31 and not bare and rnd.random() < 0.15:
            parts.append('in_tree%s=%s' % (suffix, rnd.choice(list(self.rps) + [self.aggregates[0]])))
        return parts

    def candidates(self):
        version = rnd.choice(VERSIONS[10:] + ['1.39'] * 20)
        minor = int(version[2:])
        parts, suffixes, spread = [], [], rnd.random() < 0.7 or minor < 25
        if spread:
            parts += self.group('', version, False)
        if minor >= 25:
            for n in range(1, rnd.choice([1, 2, 2, 3])):
                suffix = str(n) if minor < 33 or rnd.random() < 0.5 else '_G%d' % n
                bare = minor >= 36 and rnd.random() < 0.3
                suffixes.append((suffix, bare))
                parts += self.group(suffix, version, bare)
            if not spread and not suffixes:
                parts += self.group('1', version, False)
            if rnd.random() < 0.9:
                parts.append('group_policy=' + rnd.choice(['none', 'isolate']))
        if minor >= 36 and suffixes and (any(b for _, b in suffixes) or rnd.random() < 0.3):
            parts.append('same_subtree=' + ','.join(s for s, _ in suffixes))
        if minor >= 35 and rnd.random() < 0.2:
            parts.append('root_required=' + rnd.choice(TRAITS + ['!' + t for t in TRAITS]))
        rnd.shuffle(parts)
        self.both('GET', '/allocation_candidates?' + '&'.join(parts), version=version, subset=bool(self.sharing))

    def look(self):
        rp = rnd.choice(list(self.rps) + ['nothing', str(uuid.UUID(int=1))])
        minor = rnd.randint(0, 39)
        version = '1.%d' % minor
        path = rnd.choice([
            '/resource_providers', '/resource_providers/' + rp, '/resource_providers/%s/inventories' % rp,
            '/resource_providers/%s/inventories/VCPU' % rp, '/resource_providers/%s/usages' % rp,
            '/resource_providers/%s/allocations' % rp, '/resource_providers/%s/aggregates' % rp,
            '/resource_providers/%s/traits' % rp, '/resource_classes', '/resource_classes/VCPU', '/traits?name=startswith:CUSTOM_',
            '/traits?associated=true', '/traits/CUSTOM_FAST', '/usages?project_id=p1', '/usages?project_id=p1&user_id=u1',
            '/usages?project_id=p2&consumer_type=INSTANCE', '/usages?project_id=p1&consumer_type=all', '/usages',
            '/resource_providers?in_tree=' + rp, '/resource_providers?resources=VCPU:1', '/resource_providers?member_of=' + self.aggregates[0],
            '/resource_providers?required=HW_CPU_X86_AVX', '/resource_providers?required=in:HW_CPU_X86_AVX,CUSTOM_FAST',
            '/resource_providers?required=!HW_CPU_X86_AVX', '/resource_providers?name=' + rp[:8], '/resource_providers?uuid=' + rp,
            '/allocations/' + rnd.choice(list(self.consumers) or [rp]),
        ])
        self.both('GET', path, version=version)

    def change(self):
        rp = rnd.choice(list(self.rps))
        generation = ours_generation(rp) if rnd.random() < 0.8 else rnd.randint(0, 3)
        version = rnd.choice(VERSIONS)
        own = '/resource_providers/' + rp
        kind = rnd.randint(0, 8)
        if kind == 0:
            target = rnd.choice(list(self.rps) + [None])
            self.both('PUT', own, {'name': rp[:8], 'parent_provider_uuid': None if target in self.sharing else target}, version)
        elif kind == 1:
            self.both('PUT', own + '/inventories/' + rnd.choice(CLASSES), {'resource_provider_generation': generation, 'total': rnd.randint(0, 5), 'reserved': rnd.randint(0, 5)}, version)
        elif kind == 2:
            self.both('POST', own + '/inventories', {'resource_class': rnd.choice(CLASSES + ['CUSTOM_NONE']), 'total': rnd.randint(1, 5)}, version)
        elif kind == 3:
            self.both('DELETE', own + '/inventories/' + rnd.choice(CLASSES), version=version)
        elif kind == 4:
            self.both('DELETE', own + rnd.choice(['/inventories', '/traits', '']), version=version)
            if ours_generation(rp) is None:
                self.rps.pop(rp)
                self.sharing.discard(rp)
                if not self.rps:
                    self.add_provider()
        elif kind == 5:
            self.both('PUT', own + '/traits', {'traits': rnd.sample(TRAITS + ['CUSTOM_NONE'], 2), 'resource_provider_generation': generation}, version)
            self.sharing.discard(rp)
        elif kind == 6:
            self.both('DELETE', '/traits/CUSTOM_FAST' if rnd.random() < 0.5 else '/resource_classes/CUSTOM_GOLD', version=version)
            self.names()
        elif kind == 7:
            self.allocate()
        else:
            self.both(rnd.choice(['PUT', 'POST', 'DELETE', 'PATCH']), rnd.choice(['/allocation_candidates', '/traits', '/usages', '/nowhere', own + '/usages']), {})


def ours_generation(rp):
    status, text = ours('GET', '/resource_providers/' + rp, None, '1.39')
    return json.loads(text)['generation'] if status == 200 else None


def clear(app):
    """Both sides begin again."""
    ours('POST', '/reset', None, '1.39')
    with placement.db_api.placement_context_manager.writer.using(Empty()) as session:
        for name in ('allocations', 'inventories', 'resource_provider_traits', 'resource_provider_aggregates', 'placement_aggregates', 'consumers'):
            session.execute(models.BASE.metadata.tables[name].delete())
        rps = models.BASE.metadata.tables['resource_providers']
        session.execute(rps.update().values(parent_provider_id=None, root_provider_id=None))
        session.execute(rps.delete())


@placement.db_api.enginefacade.transaction_context_provider
class Empty:
    pass


def main():
    with tempfile.TemporaryDirectory() as folder:
        app = theirs_app(folder)
        for _ in range(CLOUDS):
            clear(app)
            cloud = Cloud(app)
            cloud.make()
            for _ in range(40):
                rnd.choice([cloud.candidates, cloud.candidates, cloud.candidates, cloud.look, cloud.look, cloud.change])()
    print('COMPARED', compared, 'DIFFERENT', different)


if __name__ == '__main__':
    main()
