# What the suites said on one kernel, as a few lines and an exit status. Called by run.sh.
#
# Variables: `kernel`, its version; `suites`, the names of all that must have run. Each must have
# begun, summed up at least one test as passed and none as failed, and ended with 0; and the
# machine must have come to its own end. A test that is not there counts as one that failed.

/^init: Linux / { booted = $(NF - 1) }
/^init: done at / { done = $(NF - 1) }
/^suite: .* begins at / { suite = $2; began[suite] = $(NF - 1) }
/^suite: .* ends with / { ended[$2] = $5; took[$2] = $(NF - 1) - began[$2] }
/^test .* \.\.\. ignored/ {
  name = $0
  sub(/^test */, "", name)
  sub(/ *\.\.\. ignored.*/, "", name)
  gsub(/  +/, " ", name)
  absent = absent (absent == "" ? "" : ", ") suite " " name
}
/^test result: / {
  for (i = 1; i < NF; i++) {
    if ($(i + 1) == "passed;") passed[suite] += $i
    if ($(i + 1) == "failed;") failed[suite] += $i
    if ($(i + 1) == "ignored;") ignored += $i
  }
}

END {
  count = split(suites, names, " ")
  for (i = 1; i <= count; i++) {
    name = names[i]
    all += passed[name]
    broken += failed[name]
    if (!(name in began)) why = "was not begun"
    else if (!(name in ended)) why = "did not come to its end"
    else if (ended[name] != 0) why = failed[name] ? failed[name] " failed" : "ended with " ended[name]
    else if (!passed[name]) why = "ran no test"
    else why = ""
    if (why != "" && !failed[name]) broken++
    lines = lines sprintf("  %-12s %4d passed%s, %d s\n", name, passed[name], why == "" ? "" : ", " toupper(why), took[name])
  }
  if (done == "" && !broken) broken++
  printf "%s: %d passed, %d failed", kernel, all, broken
  printf ", %d not run; up after %.1f s", ignored, booted
  print (done == "" ? ", and never at its end" : sprintf(", done after %d s", done))
  printf "%s", lines
  if (absent != "") printf "  NOT RUN: %s\n", absent
  exit broken ? 1 : 0
}
