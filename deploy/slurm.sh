#!/usr/bin/env bash
# Restores every scan below TREE with PARTS jobs of a SLURM array, then gathers their outcomes:
#
#     deploy/slurm.sh PARTS TREE OUT [options of restore-rwkv batch]
#
# Run it on a login node. The same command again goes on after a time limit or a fault: what is done
# is not done again. TREE and OUT have to be the same folders on every node. Partition, account and
# time can be given as sbatch takes them from the environment, such as SBATCH_PARTITION=gpu.
#SBATCH --job-name=restore-rwkv
#SBATCH --cpus-per-task=8
#SBATCH --mem-per-cpu=3G
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail

if [ "$#" -lt 3 ]; then
  echo "usage: $0 PARTS TREE OUT [options of restore-rwkv batch]" >&2
  exit 2
fi
parts=$1 tree=$2 out=$3

restore() {
  local cpus=${SLURM_CPUS_PER_TASK:-1} memory=()
  # MiB; a fifth is left for Python itself and for files on their way.
  if [ -n "${SLURM_MEM_PER_CPU:-}" ]; then
    memory=(--max-memory "$((SLURM_MEM_PER_CPU * cpus * 4 / 5))MiB")
  elif [ "${SLURM_MEM_PER_NODE:-0}" -gt 0 ]; then
    memory=(--max-memory "$((SLURM_MEM_PER_NODE * 4 / 5))MiB")
  fi
  export OMP_NUM_THREADS=$cpus
  restore-rwkv batch "$tree" --output "$out" --resume --jobs "$cpus" \
    ${memory[@]+"${memory[@]}"} "$@"
}

case ${RESTORE_RWKV_STEP:-submit} in
  submit)
    mkdir -p "$out"
    # The step is set here, not in --export, whose commas would split paths.
    export RESTORE_RWKV_STEP=part
    array=$(sbatch --parsable --array="1-$parts" --output="$out/slurm-%A_%a.log" "$0" "$@")
    array=${array%%;*} # which may be followed by the name of the cluster
    export RESTORE_RWKV_STEP=gather
    # afterany: a part that failed must not keep the others' outcomes from being gathered.
    gather=$(sbatch --parsable --dependency="afterany:$array" --output="$out/slurm-%j.log" "$0" "$@")
    echo "parts: job $array; gathering: job ${gather%%;*}; logs in $out"
    ;;
  part)
    shift 3
    status=0
    restore --part "$SLURM_ARRAY_TASK_ID/$parts" "$@" || status=$?
    # 1: some scans were refused or failed, as the last job says; no fault of this one.
    [ "$status" -le 1 ] || exit "$status"
    ;;
  gather)
    shift 3
    # What the parts have done is taken over; what they have not come to is restored now.
    restore "$@"
    ;;
  *)
    echo "RESTORE_RWKV_STEP is $RESTORE_RWKV_STEP; leave it unset" >&2
    exit 2
    ;;
esac
