#!/bin/sh
# secrets.sh LIST FOLDER -- whether anything below FOLDER, which holds all that a run of the tests said, holds a line of LIST,
# the secrets that it gave out.  Prints where; exit code 1.  Words of the result, never of the secret.
set -eu
list=$1 folder=$2
LC_ALL=C
export LC_ALL

# The last servers end after the specs, and then their logs come.
turn=0
while [ -n "$(find "$folder" -name 'watched-*')" ] && [ $turn -lt 300 ]; do
    turn=$((turn + 1))
    sleep 0.1
done
rm -f "$folder"/watched-*

sort -u "$list" >"$list.sorted"
# search: the files that hold a secret.
search() { find "$folder" -type f -exec grep -laF -f "$list.sorted" {} +; }

# It finds what is there: the last secret, planted.
tail -n 1 "$list.sorted" | sed 's/^/x/; s/$/y/' >"$folder/planted"
found=$(search || true)
rm "$folder/planted"
case "$found" in
*"$folder/planted"*) ;;
*) echo "secrets: the search does not find what was planted"; exit 1 ;;
esac

count=$(wc -l <"$list.sorted")
bytes=$(find "$folder" -type f -exec cat {} + | wc -c)
files=$(find "$folder" -type f | wc -l)
echo "$count secrets and parts of secrets were given out; $files files with $bytes bytes were said"
leaks=$(search || true)
[ -n "$leaks" ] || exit 0
echo "A secret is in:"
for leak in $leaks; do # our names have no spaces
    echo "  $leak, line $(grep -naF -f "$list.sorted" "$leak" | cut -d: -f1 | head -n 5 | tr '\n' ' ')"
done
exit 1
