#!/bin/sh
# build.sh IMAGE: makes a Docker image of Apache Kafka without a container registry.
#
# It holds a Java runtime linked from this machine's JDK, the C libraries that this needs, Kafka's jars as Maven resolves
# them, and formatted storage, so that a start costs one JVM instead of two. It has no shell: ask the broker from outside.
# Its one argument is where Apache's own image looks for its configuration too, so that one compose file serves both.
set -eu
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root
mkdir -p "$root/opt/kafka" "$root/tmp" "$root/var/lib/kafka/data" "$root/mnt/shared/config"

# Native symbols stay: stripping them would ask for objcopy, which a machine without compilers has not.
# log4j-core needs java.beans, which is in java.desktop: without it the broker dies with NoClassDefFoundError.
jlink --add-modules java.base,java.desktop,java.logging,java.management,java.naming,java.security.jgss,java.security.sasl,java.sql,java.xml,jdk.management,jdk.unsupported \
    --strip-java-debug-attributes --no-header-files --no-man-pages --output "$root/opt/jre"
for lib in /lib*/ld-linux-*.so.* $(printf "/lib/$(uname -m)-linux-gnu/lib%s.so.* " c m z dl rt pthread gcc_s stdc++); do
    cp --parents -L "$lib" "$root"
done

mvn --quiet --batch-mode --file pom.xml dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$root/opt/kafka/libs"
cp log4j2.yaml "$root/opt/kafka/"

for node in 1 2 3; do # a broker alone is node 1; a cluster has up to three
    sed "s/@PLAINTEXT@/9092/; s/@SASL@/9094/; s/@CONTROLLER@/9093/; s/^node.id=.*/node.id=$node/; s/=1@/=$node@/; s,^log.dirs=.*,log.dirs=$root/var/lib/kafka/data/$node," \
        server.properties > "$work/server.properties"
    "$root/opt/jre/bin/java" -cp "$root/opt/kafka/libs/*" kafka.tools.StorageTool format \
        --cluster-id MkU3OEVBNTcwNTJENDM2Qk --config "$work/server.properties" > "$work/format.log" 2>&1 || { cat "$work/format.log"; exit 1; }
done

# `docker import` needs nothing but the engine, where `docker build` asks for a builder that Debian 13 packages apart.
tar -C "$root" --owner=0 --group=0 -cf - . | docker import \
    --change 'ENV PATH=/opt/jre/bin' \
    --change 'ENV CLASSPATH=/opt/kafka/libs/*' \
    --change 'ENV JAVA_TOOL_OPTIONS="-Xmx512m -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Dlog4j2.configurationFile=/opt/kafka/log4j2.yaml"' \
    --change 'ENTRYPOINT ["java", "kafka.Kafka", "/mnt/shared/config/server.properties"]' \
    - "$1"
