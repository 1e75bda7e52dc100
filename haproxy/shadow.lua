-- shadow: copies of requests to the canary, before it gets any visitor.
--
-- `http-request lua.shadow ADDRESS PORT` hands a copy to a task of its own and returns at once: the visitor's request never
-- waits for it. The copy is a GET of the same path and query with the Host that is in txn.shadow_host; what it is answered is
-- thrown away. Nothing that goes wrong here is of any consequence: too many copies under way, and one is not made.

-- Copies under way on one thread. Beyond it the canary is too slow for what it is sent, and the edge would pay with memory.
local MOST = 100

-- Seconds for each step of a copy.
local TIMEOUT_S = 1

local under_way = 0

local function send(address, port, request)
    local socket = core.tcp()
    socket:settimeout(TIMEOUT_S)
    if socket:connect(address, port) and socket:send(request) then
        socket:receive("*l")
    end
    socket:close()
end

local function shadow(txn, address, port)
    local target = txn.f:pathq()
    local host = txn:get_var("txn.shadow_host")
    -- What is written into a request of our own is looked at here, not only where it came in.
    if under_way >= MOST or not host or not target or not target:match("^/[\33-\126]*$") then
        return
    end
    local request = "GET " .. target .. " HTTP/1.1\r\nHost: " .. host ..
        "\r\nX-Forwarded-For: " .. txn.f:src() .. "\r\nConnection: close\r\n\r\n"
    under_way = under_way + 1
    local started = pcall(core.register_task, function()
        pcall(send, address, tonumber(port), request)
        under_way = under_way - 1
    end)
    if not started then
        under_way = under_way - 1
    end
end

core.register_action("shadow", { "http-req" }, shadow, 2)
