module scratchd.test/load

go 1.19
