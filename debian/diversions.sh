# What postinst, prerm and postrm share (dh_installdeb puts it into each of them).
#
# /usr/sbin/ganeti-noded and /usr/sbin/ganeti-rapi are Ganeti's files. While this
# package is configured they are diverted to *.distrib, in the same directory since
# Ganeti's are relative links, and links to our wrappers stand in their place. dpkg
# does not know those links: had the package the files themselves, a removal would
# leave the names empty for a while, and an install would put them in force before
# what they need is there. So each name changes hands by one rename, and at no moment
# is a node without its node daemon.

DAEMONS="ganeti-noded ganeti-rapi"

# Is /usr/sbin/$1 our link?
is_ours() {
    [ "$(readlink "/usr/sbin/$1")" = "../libexec/ganeti-ext/$1" ]
}

# Make /usr/sbin/$1 a link to $2, in one step.
link() {
    ln -sfn "$2" "/usr/sbin/$1.ganeti-ext"
    mv -fT "/usr/sbin/$1.ganeti-ext" "/usr/sbin/$1"
}

# Is there a file of that name, be it a link that leads nowhere?
exists() {
    [ -e "$1" ] || [ -L "$1" ]
}

# Put our wrappers in force. Can be run again at any point.
divert() {
    # Before anything is changed: one of the two without the other would be half an installation.
    for daemon in $DAEMONS; do
        path="/usr/sbin/$daemon"
        owner="$(dpkg-divert --listpackage "$path")"
        if [ -n "$owner" ] && [ "$owner" != ganeti-ext ]; then
            # Somebody else's replacement: not ours to undo, nor to be trusted.
            echo "ganeti-ext: $path is already diverted by $owner. Undo that, then go on:" >&2
            echo "  mv $path /root/; dpkg-divert --rename --remove $path; dpkg --configure ganeti-ext" >&2
            return 1
        fi
    done
    for daemon in $DAEMONS; do
        path="/usr/sbin/$daemon"
        # Both names hold Ganeti's file until ours takes the first one.
        if exists "$path" && ! is_ours "$daemon"; then
            cp -a --remove-destination "$path" "$path.distrib"
        fi
        dpkg-divert --quiet --package ganeti-ext --no-rename --divert "$path.distrib" --add "$path"
        is_ours "$daemon" || link "$daemon" "../libexec/ganeti-ext/$daemon"
    done
}

# Put Ganeti's own back, and say in $undiverted whether there was anything to do.
# Can be run again at any point.
undivert() {
    undiverted=no
    for daemon in $DAEMONS; do
        path="/usr/sbin/$daemon"
        if [ "$(dpkg-divert --listpackage "$path")" = ganeti-ext ]; then
            undiverted=yes
            if exists "$path.distrib"; then
                mv -fT "$path.distrib" "$path"
            elif is_ours "$daemon" && [ -x "/usr/share/ganeti/default/$daemon" ]; then
                # Somebody has cleared it away.
                link "$daemon" "../share/ganeti/default/$daemon"
            elif is_ours "$daemon"; then
                # Ganeti has gone before us.
                rm -f "$path"
            fi
            dpkg-divert --quiet --package ganeti-ext --no-rename --divert "$path.distrib" --remove "$path"
        fi
    done
}

# Restart one daemon, if it runs and the machine's policy lets us.
restart() {
    if [ -d /run/systemd/system ] && systemctl --quiet is-active "$1.service"; then
        # From sid on each daemon is a unit of its own.
        deb-systemd-invoke restart "$1.service"
    elif [ -x /etc/init.d/ganeti ] && /usr/lib/ganeti/daemon-util check "$1"; then
        # One init script has all daemons; run by systemd it cannot restart one of
        # them. So we ask it for the policy alone, and use what it uses itself.
        allowed=0
        invoke-rc.d --quiet --query ganeti restart || allowed=$?
        case "$allowed" in
            104|105)
                /usr/lib/ganeti/daemon-util stop "$1"
                # Under systemd a process belongs to what has started it: were that a
                # service that installs packages, the daemon would end with it.
                if [ -d /run/systemd/system ]; then
                    systemd-run --quiet --scope --slice=system.slice \
                        /usr/lib/ganeti/daemon-util start "$1" ||
                        /usr/lib/ganeti/daemon-util start "$1"
                else
                    /usr/lib/ganeti/daemon-util start "$1"
                fi
                ;;
            *)
                echo "ganeti-ext: $1 is not restarted, by this machine's policy" >&2
                ;;
        esac
    fi
}

# Let the daemons that run take up the change; nothing that stands still is started.
# A daemon that does not come back must not leave the package half configured.
restart_daemons() {
    # A machine that is no node of a cluster has no daemons of Ganeti's.
    if [ -f /var/lib/ganeti/server.pem ]; then
        for daemon in $DAEMONS; do
            if ! "/usr/sbin/$daemon" --version > /dev/null; then
                # What runs is better left alone, say an old Ganeti on a new Python until `gnt-cluster upgrade`.
                echo "ganeti-ext: $daemon is not restarted: it would not start" >&2
            elif ! restart "$daemon"; then
                echo "ganeti-ext: $daemon could not be restarted" >&2
            fi
        done
    fi
}
