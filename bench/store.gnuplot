# store.png from store.tsv: time to store, bytes of the family, and what the budget of extents does.
set terminal pngcairo size 1200,420 font "sans,10"
set output png
set datafile separator "\t"
set multiplot layout 1,3
set style fill solid 0.8
set boxwidth 0.7
set grid ytics
set yrange [0:*]
unset key
pick(what) = sprintf("< awk -F'\\t' '$1 ~ /^%s$/ { sub(/^budget /, \"\", $2); print $2 \"\\t\" $3 }' %s", what, tsv)
set title "a new image, seconds until durable"
plot pick("new image") using 0:2:xticlabels(1) with boxes
set title "the family of images, MiB stored"
plot pick("family of [0-9]+") using 0:($2 / 1048576):xticlabels(1) with boxes
set title "a rebuilt image: MiB stored by extents allowed a region"
plot pick("rebuilt: new bytes") using 0:($2 / 1048576):xticlabels(1) with linespoints pointtype 7
unset multiplot
