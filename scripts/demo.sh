#!/usr/bin/env bash
# demo.sh [TEXT]: prepares a text, trains a small LLaMA on it with `sinkgd`, then briefly on two processes that send 1-bit
# votes, and shows what came of it: a table, runs/demo/loss.png and a passage that the model wrote. About 6 minutes on
# 2 cores. Text and prepared data are kept; an interrupted demo goes on where it stopped, a finished one starts afresh.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PATH="$PWD/.venv/bin:$PATH"

readonly steepest=build/steepest
readonly folder=runs/demo
readonly prompt="The "

say() { printf '\ndemo: %s\n' "$*"; }
stop() {
  printf 'demo: %s\n' "$*" >&2
  exit 1
}

# The GNU Collaborative International Dictionary of English, 40 MB of text from Debian. apt-get downloads it without root.
fetch_gcide() {
  local target=$1 installed=/usr/share/dictd/gcide.dict.dz work
  if [[ ! -r $installed ]]; then
    command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || return 1
    work=$(mktemp -d)
    (cd "$work" && apt-get -qq download dict-gcide >/dev/null 2>&1 && dpkg-deb -x dict-gcide_*.deb .) || { rm -rf "$work"; return 1; }
    installed=$work$installed
  fi
  cp "$installed" "$target.partial" && mv "$target.partial" "$target"
  [[ -z ${work:-} ]] || rm -rf "$work"
}

find_text() {
  if [[ -n ${1:-} ]]; then
    [[ -e $1 ]] || stop "TEXT=$1 does not exist"
    text=$1
  elif [[ -s $folder/gcide.gz ]] || { say "fetching the dictionary GCIDE from Debian" && fetch_gcide $folder/gcide.gz; }; then
    text=$folder/gcide.gz
  else
    text=$folder/docstrings.txt
    say "Debian's package dict-gcide cannot be had here; instead the text is the documentation inside the installed" \
      "Python packages, so expect a passage about software. TEXT=file trains on your own text."
    [[ -s $text ]] || python scripts/docstrings.py "$text"
  fi
}

# Data and runs that belong to another text, and runs that are finished or made by another recipe, are removed.
clear_old_runs() {
  local origin
  origin=$(stat -Lc '%n %s %Y' "$text")
  if [[ $origin != "$(cat $folder/origin 2>/dev/null)" ]]; then
    rm -rf $folder/data $folder/sinkgd $folder/vote $folder/finished
    echo "$origin" >$folder/origin
  fi
  if [[ -e $folder/finished || recipes/demo.toml -nt $folder/origin || recipes/demo-vote.toml -nt $folder/origin ]]; then
    rm -rf $folder/sinkgd $folder/vote $folder/finished
    touch $folder/origin
    say "starting both runs afresh"
  elif [[ -d $folder/sinkgd ]]; then
    say "going on where the last demo was interrupted"
  fi
}

prepare_data() {
  [[ -e $folder/data/dataset.json ]] && return
  say "preparing $text: a tokenizer of 4096 pieces, and tokens"
  $steepest prepare "$text" --out $folder/data --vocab-size 4096
}

checkpoint_of() { echo "$folder/$1/checkpoints/$(cat "$folder/$1/checkpoints/latest")"; }

mkdir -p $folder
find_text "${1:-}"
clear_old_runs
prepare_data

say "training with sinkgd on one process"
$steepest train recipes/demo.toml --data.path $folder/data --out $folder/sinkgd --resume auto

say "training with signum on two processes that send 1-bit votes"
threads=$(($(nproc) / 2))
OMP_NUM_THREADS=$((threads > 0 ? threads : 1)) torchrun --standalone --no-python --nproc-per-node 2 \
  $steepest train recipes/demo-vote.toml --data.path $folder/data --out $folder/vote --resume auto

say "what came of it"
python scripts/demo_table.py $folder/sinkgd $folder/vote
python scripts/plot_loss.py $folder/sinkgd $folder/vote --out $folder/loss.png

say "a passage that the sinkgd model continues from \"$prompt\":"
$steepest generate "$(checkpoint_of sinkgd)" --prompt "$prompt" --max-tokens 150 --temperature 0.8 --top-k 50 --seed 1
touch $folder/finished
say "the picture is $folder/loss.png, the model $(checkpoint_of sinkgd)"
