# SPDX-License-Identifier: BSD-2-Clause
# make demo   the main job, live, on a cluster that it brings up itself
# make test   everything that CI runs; beside it, some of it in a system of another release
# make matrix everything, in a system of each Debian release: make matrix trixie sid, make matrix REBUILD=1
# All need root on a Debian machine that may be changed: they install packages, ours too.

PYTHON = /usr/bin/python3
SOURCES = setup.py $(shell find ganeti_ext sbin debian docs examples -type f -not -name '*.pyc') README.md LICENSE

RELEASES = bullseye bookworm trixie sid

.PHONY: demo demo-stop test matrix $(RELEASES) lint deb install bench clean

demo: install
	tests/install-deps demo
	$(PYTHON) -m tests.demo

demo-stop:
	$(PYTHON) tests/cluster/vcluster.py down demo

test: install build/lint/done
	tests/install-deps build demo test
	$(MAKE) --no-print-directory lint
	mkdir -p build
	$(PYTHON) -m tests.matrix --in-turn --few >build/in-turn.log 2>&1 & in_turn=$$!; \
	$(PYTHON) -m pytest tests; status=$$?; \
	wait $$in_turn || status=1; cat build/in-turn.log; exit $$status

# Half an hour for each release; then a table, and logs in build/matrix/RELEASE. Their systems are kept in
# /var/cache/ganeti-ext-test: REBUILD=1 makes them anew.
matrix:
	tests/install-deps test
	$(PYTHON) -m tests.matrix $(if $(REBUILD),--rebuild) $(filter $(RELEASES),$(MAKECMDGOALS))

$(RELEASES): matrix
	@:

lint: build/lint/done
	build/lint/bin/ruff check .
	build/lint/bin/ruff format --check .
	build/lint/bin/mypy

# Eight minutes, ten on a slow machine. PART=decision (direct, noded, patches, requests, startup, transport) runs one
# of them, or several. Table on the terminal; build/bench.json, and plots in build/bench.html.
bench: install build/bench/done
	tests/install-deps demo
	$(PYTHON) -m tests.bench $(PART)

# The other policy engines: one that cannot be had is told in the table.
build/bench/done: tests/bench/requirements.txt
	tests/install-deps test
	rm -rf build/bench
	$(PYTHON) -m venv --system-site-packages build/bench/venv
	-while read -r package; do case "$$package" in "#"*) ;; \
	  *) build/bench/venv/bin/pip install --quiet "$$package" || echo "not to be had: $$package";; \
	esac; done < $<
	touch $@

deb: build/deb/done

# The package is installed on this machine: the cluster's nodes run its daemons.
install: build/deb/done
	tests/install-deps demo
	dpkg --install build/deb/*.deb

build/deb/done: $(SOURCES)
	tests/install-deps build
	rm -rf build/deb
	debian/build-deb build/deb
	debian/check-deb build/deb
	touch $@

build/lint/done: tests/requirements.txt
	tests/install-deps test
	rm -rf build/lint
	$(PYTHON) -m venv --system-site-packages build/lint
	build/lint/bin/pip install --quiet --requirement tests/requirements.txt
	touch $@

clean:
	rm -rf build
