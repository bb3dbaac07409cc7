# Draws bench/boot's table: gnuplot -e "tsv='boot.tsv'; png='boot.png'" boot.gnuplot
set terminal pngcairo size 900,420
set output png
set datafile separator "\t"
set title "Boot: exec of the monitor to the init's first line, and to the end of the process"
set ylabel "counted ms (1,000,000 instructions)"
set style data histogram
set style histogram rowstacked
set style fill solid 0.8 border -1
set boxwidth 0.6
set yrange [0:*]
set key top left
plot tsv using 2:xtic(1) every ::1 title "exec to line", '' using 3 every ::1 title "line to end"
