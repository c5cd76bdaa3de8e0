#!/usr/bin/env bash
# A Slurm of one node on this machine's loopback address, for the tests:
#
#     tests/slurm/cluster.sh start FOLDER     all of its files lie in FOLDER, an empty folder with a short path
#     export SLURM_CONF=FOLDER/slurm.conf     sbatch, squeue and scancel then talk to it
#     tests/slurm/cluster.sh stop FOLDER
#
# It needs munge and slurm-wlm (apt-get install munge slurm-wlm) and no special rights; an installed Slurm is left alone.
# Its own key, its own ports, no accounting database, no control groups: a container is enough.
set -euo pipefail
export PATH="$PATH:/usr/sbin:/sbin"
action=${1:?start or stop} folder=$(realpath "${2:?a folder}")

stop() {
  SLURM_CONF="$folder/slurm.conf" timeout 10 scancel --user "$(id -un)" 2>/dev/null || true
  for name in slurmd slurmctld munged; do
    pid=$(cat "$folder/$name.pid" 2>/dev/null) || continue
    kill "$pid" 2>/dev/null || continue
    for _ in $(seq 100); do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
  done
}

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

start() {
  mkdir -p "$folder"/{munge,state,spool}
  chmod 755 "$folder"
  chmod 711 "$folder/munge"
  head -c 128 /dev/urandom > "$folder/munge/key"
  chmod 400 "$folder/munge/key"
  cat > "$folder/slurm.conf" <<CONF
ClusterName=test
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
AuthType=auth/munge
AuthInfo=socket=$folder/munge/socket,cred_expire=5
CryptoType=crypto/munge
SlurmctldPort=$(free_port)
SlurmdPort=$(free_port)
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=5
MailProg=/bin/true
NodeName=$(hostname -s) NodeAddr=127.0.0.1 CPUs=4 State=UNKNOWN
PartitionName=test Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
  munged --socket "$folder/munge/socket" --key-file "$folder/munge/key" --pid-file "$folder/munged.pid" \
         --log-file "$folder/munge/log" --seed-file "$folder/munge/seed"
  export SLURM_CONF="$folder/slurm.conf"
  slurmctld
  slurmd
  for _ in $(seq 60); do
    if [ "$(sinfo --noheader --format=%t 2>/dev/null)" = idle ]; then echo "$SLURM_CONF"; return; fi
    sleep 0.5
  done
  echo "the node did not come up within 30 s:" >&2
  tail -n 5 "$folder"/*.log >&2
  stop
  exit 1
}

"$action"
