# What the real Rack makes of queries: one on each line of standard input, hexadecimal, behind "N " where N are the
# separators (or "-" for Rack's own). Prints for each a JSON document in which every string is hexadecimal too, since
# Rack lets bytes through that are no UTF-8, or a string: the name of the error.
require "json"
require "rack"

def hexadecimal(value)
  case value
  when Hash then value.to_h { |key, inside| [hexadecimal(key), hexadecimal(inside)] }
  when Array then value.map { |inside| hexadecimal(inside) }
  when String then value.unpack1("H*")
  else value
  end
end

STDOUT.sync = true
puts Rack.release
STDIN.each_line(chomp: true) do |line|
  separators, query = line.split(" ", 2)
  begin
    query = [query].pack("H*")
    parsed = separators == "-" ? Rack::Utils.parse_nested_query(query) : Rack::Utils.parse_nested_query(query, separators)
    puts JSON.generate(hexadecimal(parsed), max_nesting: 0)
  rescue Rack::QueryParser::ParameterTypeError, Rack::QueryParser::InvalidParameterError, RangeError => error
    puts JSON.generate(error.class.name)
  end
end
