# Draws bench/restore's table: gnuplot -e "tsv='restore.tsv'; png='restore.png'" restore.gnuplot
set terminal pngcairo size 1000,420
set output png
set datafile separator "\t"
set title "Restore: exec of the monitor to the guest's next words"
set ylabel "counted ms (1,000,000 instructions)"
set style data histogram
set style fill solid 0.8 border -1
set boxwidth 0.6
set yrange [0:*]
set xtics rotate by -15
plot tsv using 3:xtic(strcol(1)." ".strcol(2)) every ::1 notitle
